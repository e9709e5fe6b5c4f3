"""What this appliance changes inside Superset beyond its settings; superset_config.py names each of these."""

import logging
from typing import Any

from flask import Flask, current_app, g, redirect
from flask_appbuilder import expose
from superset.extensions import _event_logger, appbuilder
from superset.initialization import SupersetIndexView
from superset.superset_typing import FlaskResponse
from superset.utils.log import AbstractEventLogger


class HomeView(SupersetIndexView):
    """``/``, and so the page after login: the Live board, or the welcome page until it is imported."""

    @expose("/")
    def index(self) -> FlaskResponse:
        from superset.daos.dashboard import DashboardDAO  # noqa: PLC0415  needs the app

        slug = current_app.config["MUSIC_HOME_DASHBOARD"]
        known = g.user and not g.user.is_anonymous
        if known and DashboardDAO.find_one_or_none(slug=slug) is None:
            return super().index()
        return redirect(f"/superset/dashboard/{slug}/")


class QuietEventLogger(AbstractEventLogger):
    """Writes nothing. The default writes a row per request for ever: twenty viewers make a million a day."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


def customise(app: Flask) -> None:
    """Called by FLASK_APP_MUTATOR, when the extensions are there and the login's views are registered."""
    _event_logger["event_logger"] = QuietEventLogger()
    # A line per request for each metric that is more than one aggregate, which every rate is.
    logging.getLogger("superset.utils.core").addFilter(
        lambda record: not str(record.msg).startswith("Unexpected metric expression type")
    )
    # Flask-AppBuilder limits the login form only; the REST login guesses passwords just as well.
    # Only failures count, so that musicctl and the checks are never locked out by their own work.
    login = app.view_functions["SecurityApi.login"]
    limit = appbuilder.sm.limiter.limit(
        app.config["AUTH_RATE_LIMIT"], deduct_when=lambda response: response.status_code == 401
    )
    app.view_functions["SecurityApi.login"] = limit(login)
