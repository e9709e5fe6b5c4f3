"""`musicctl listener`: the people of the household and the tokens of their players."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from music_streaming import listener as store
from music_streaming import terminal
from music_streaming.country import COUNTRIES, UNKNOWN_CODE
from music_streaming.event import AGE_GROUPS, SUBSCRIPTION_TYPES, UNKNOWN
from music_streaming.settings import Role, Settings

APPLICATION = "musicctl-listener"


@click.group()
def listener() -> None:
    """Real listeners and the tokens of their players."""


@listener.command()
@click.argument("name")
@click.option("--player", default="player", show_default=True, help="The player that the token is for.")
@click.option("--age-group", type=click.Choice([*AGE_GROUPS, UNKNOWN]), help="What plays are counted under.")
@click.option("--country", metavar="CODE", help="Two letters (ISO 3166-1), such as DE.")
@click.option("--subscription", type=click.Choice([*SUBSCRIPTION_TYPES, UNKNOWN]), help="Of the music.")
@click.option("--no-token", is_flag=True, help="Add the listener alone, as for an import.")
@terminal.as_json
def add(
    name: str,
    *,
    player: str,
    age_group: str | None,
    country: str | None,
    subscription: str | None,
    no_token: bool,
    as_json: bool,
) -> None:
    """Add listener NAME, or one more player to it, and show the player's token: only now.

    Attributes that are given replace those of a listener who is there; they hold for plays from now on.
    """
    code = country and country.upper()
    if code and code not in (*COUNTRIES, UNKNOWN_CODE):
        raise click.BadParameter(f"found {country}, wanted two letters such as DE", param_hint="--country")
    with Settings.load().postgres.connection(Role.OWNER, application=APPLICATION) as connection:
        there = store.listeners(connection)
        known = next((one for one in there.values() if one.name.lower() == name.strip().lower()), None)
        before = known or store.Listener(store.checked_name(name))
        wanted = store.Listener(
            before.name,
            age_group or before.age_group,
            code or before.country,
            subscription or before.subscription_type,
        )
        if known != wanted:
            store.add(connection, wanted)
        token = None if no_token else store.make_token(connection, wanted.name, player)
    if as_json:
        terminal.print_json({"listener": wanted.name, "new": known is None, "player": player, "token": token})
        return
    click.echo(f"{'changed' if known else 'added'}: listener {wanted.name}")
    if token:
        click.echo(f"token of {player}, shown only now: {token}")


@listener.command("list")
@terminal.as_json
def list_(as_json: bool) -> None:
    """Show every listener with attributes and players; no token."""
    with Settings.load().postgres.connection(Role.OWNER, application=APPLICATION) as connection:
        people, tokens = store.listeners(connection), store.tokens(connection)
    players = {
        name: [token for token in tokens if token.listener == name and not token.revoked_at]
        for name in people
    }
    if as_json:
        terminal.print_json(
            [
                {
                    "name": one.name,
                    "age_group": one.age_group,
                    "country": one.country,
                    "subscription_type": one.subscription_type,
                    "players": [{"name": own.player, "made_at": own.made_at} for own in players[one.name]],
                }
                for one in people.values()
            ]
        )
        return
    table = Table("listener", "age group", "country", "subscription", "players with a token")
    for one in people.values():
        own = ", ".join(token.player for token in players[one.name])
        table.add_row(*map(Text, (one.name, one.age_group, one.country, one.subscription_type, own)))
    terminal.console().print(table)


@listener.command()
@click.argument("name")
@click.option("--player", help="Of this player alone; otherwise of all that the listener has.")
def revoke(name: str, player: str | None) -> None:
    """Make the tokens of listener NAME useless; the plays stay."""
    with Settings.load().postgres.connection(Role.OWNER, application=APPLICATION) as connection:
        count = store.revoke(connection, name, player)
    if count == 0:
        raise store.ListenerError.of(
            "Token",
            found=f"none in use for {name}" + (f" and player {player}" if player else ""),
            wanted="a token to revoke",
            remedy="sudo musicctl listener list",
        )
    click.echo(f"revoked: {count} {'token' if count == 1 else 'tokens'} of {name}")
