import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.ByteBuffer;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Duration;
import java.time.Instant;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * The job in the Kafka Streams DSL: the raw plays, and four windowed aggregates with a topic for repartitioning
 * and a changelog each; JDBC sinks in batches that upsert. Listeners are not counted: there is no aggregate for it.
 */
public class Streams {
    static final ObjectMapper JSON = new ObjectMapper();
    static final String[] FIELDS = env("FIELDS").split(",");
    static final long PLAYS = Long.parseLong(env("PLAYS"));
    static final int SINK_ROWS = 5000;
    /** What each sink has stored so far, in plays. */
    static final Map<String, AtomicLong> STORED = new ConcurrentHashMap<>();

    record Metric(String table, int minutes, String first, String second) {}

    static final List<Metric> METRICS = List.of(
        new Metric("m_engagement", 5, "subscription_type", "age_group"),
        new Metric("m_content", 60, "song_id", "genre"),
        new Metric("m_geography", 5, "country", "source"),
        new Metric("m_device", 5, "device_type", "os"));

    static String env(String name) {
        return System.getenv("BENCH_" + name);
    }

    static void mark(String name) {
        System.out.printf("%s %.3f%n", name, System.currentTimeMillis() / 1000.0);
    }

    /** Writes rows in batches: when enough have gathered, and each second. */
    abstract static class Sink<K, V> implements Processor<K, V, Void, Void> {
        final String table;
        Connection connection;
        PreparedStatement statement;
        int rows;

        Sink(String table) {
            this.table = table;
            STORED.putIfAbsent(table, new AtomicLong());
        }

        abstract String sql();

        /** Adds what has gathered to the statement; returns how many plays more are stored with it. */
        abstract long fill() throws SQLException;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            try {
                connection = DriverManager.getConnection(
                    env("JDBC") + "?reWriteBatchedInserts=true", "postgres", "postgres");
                connection.setAutoCommit(false);
                statement = connection.prepareStatement(sql());
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
            context.schedule(Duration.ofSeconds(1), PunctuationType.WALL_CLOCK_TIME, time -> flush());
        }

        void flush() {
            if (rows == 0) {
                return;
            }
            try {
                long plays = fill();
                statement.executeBatch();
                connection.commit();
                rows = 0;
                STORED.get(table).addAndGet(plays);
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
        }

        void added(int now) {
            rows = now;
            if (rows >= SINK_ROWS) {
                flush();
            }
        }
    }

    static class RawSink extends Sink<String, JsonNode> {
        RawSink() {
            super("raw");
        }

        @Override
        String sql() {
            String values = String.join(",", Collections.nCopies(FIELDS.length, "?"));
            return "INSERT INTO raw (" + String.join(",", FIELDS) + ") VALUES (" + values + ") ON CONFLICT DO NOTHING";
        }

        @Override
        public void process(Record<String, JsonNode> record) {
            try {
                for (int at = 0; at < FIELDS.length; at++) {
                    set(at + 1, FIELDS[at], record.value().get(FIELDS[at]));
                }
                statement.addBatch();
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
            added(rows + 1);
        }

        void set(int at, String field, JsonNode value) throws SQLException {
            if (value == null || value.isNull()) {
                statement.setNull(at, Types.NULL);
            } else if (field.equals("event_time")) {
                statement.setTimestamp(at, Timestamp.from(Instant.parse(value.asText())));
            } else if (value.isBoolean()) {
                statement.setBoolean(at, value.asBoolean());
            } else if (value.isNumber()) {
                statement.setLong(at, value.asLong());
            } else {
                statement.setString(at, value.asText());
            }
        }

        @Override
        long fill() {
            return rows;
        }
    }

    static class MetricSink extends Sink<Windowed<String>, long[]> {
        final Metric metric;
        final Map<Windowed<String>, long[]> gathered = new LinkedHashMap<>();
        final Map<Windowed<String>, Long> before = new HashMap<>();

        MetricSink(Metric metric) {
            super(metric.table());
            this.metric = metric;
        }

        @Override
        String sql() {
            String key = "window_start, " + metric.first() + ", " + metric.second();
            return "INSERT INTO " + table + " (" + key + ", plays, skips, likes, listened_ms, duration_ms) "
                + "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (" + key + ") DO UPDATE SET plays = excluded.plays, "
                + "skips = excluded.skips, likes = excluded.likes, listened_ms = excluded.listened_ms, "
                + "duration_ms = excluded.duration_ms";
        }

        @Override
        public void process(Record<Windowed<String>, long[]> record) {
            gathered.put(record.key(), record.value());
            added(gathered.size());
        }

        @Override
        long fill() throws SQLException {
            long more = 0;
            for (var entry : gathered.entrySet()) {
                String[] keys = entry.getKey().key().split("\\|", 2);
                statement.setTimestamp(1, new Timestamp(entry.getKey().window().start()));
                statement.setString(2, keys[0]);
                statement.setString(3, keys[1]);
                for (int at = 0; at < 5; at++) {
                    statement.setLong(at + 4, entry.getValue()[at]);
                }
                statement.addBatch();
                Long known = before.put(entry.getKey(), entry.getValue()[0]);
                more += entry.getValue()[0] - (known == null ? 0 : known);
            }
            gathered.clear();
            return more;
        }
    }

    static final Serde<JsonNode> PLAY = Serdes.serdeFrom(
        (topic, play) -> play == null ? null : play.toString().getBytes(),
        (topic, bytes) -> {
            try {
                return JSON.readTree(bytes);
            } catch (java.io.IOException error) {
                return null;
            }
        });
    static final Serde<long[]> COUNTS = Serdes.serdeFrom(
        (topic, counts) -> {
            if (counts == null) {
                return null;
            }
            ByteBuffer made = ByteBuffer.allocate(counts.length * Long.BYTES);
            made.asLongBuffer().put(counts);
            return made.array();
        },
        (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            long[] counts = new long[bytes.length / Long.BYTES];
            ByteBuffer.wrap(bytes).asLongBuffer().get(counts);
            return counts;
        });

    static long[] counts(JsonNode play) {
        return new long[] {1, play.get("skipped").asBoolean() ? 1 : 0, play.get("liked").asBoolean() ? 1 : 0,
            play.get("listened_ms").asLong(), play.get("duration_ms").asLong()};
    }

    static long[] sum(long[] one, long[] other) {
        long[] made = new long[one.length];
        for (int at = 0; at < one.length; at++) {
            made[at] = one[at] + other[at];
        }
        return made;
    }

    static StreamsBuilder topology() {
        StreamsBuilder made = new StreamsBuilder();
        KStream<String, JsonNode> plays = made.stream(env("TOPIC"), Consumed.with(Serdes.String(), PLAY)
            .withTimestampExtractor((record, known) ->
                Instant.parse(((JsonNode) record.value()).get("event_time").asText()).toEpochMilli()));
        plays.process(RawSink::new);
        for (Metric metric : METRICS) {
            plays
                .map((key, play) -> KeyValue.pair(
                    play.get(metric.first()).asText() + "|" + play.get(metric.second()).asText(), counts(play)))
                .groupByKey(Grouped.with(metric.table(), Serdes.String(), COUNTS))
                // Partitions of a backlog are read unevenly: what one of them has left counts as late.
                .windowedBy(TimeWindows.ofSizeAndGrace(
                    Duration.ofMinutes(metric.minutes()), Duration.ofDays(1)))
                .aggregate(() -> new long[5], (key, play, all) -> sum(play, all),
                    Materialized.with(Serdes.String(), COUNTS))
                .toStream()
                .process(() -> new MetricSink(metric));
            STORED.put(metric.table(), new AtomicLong());
        }
        STORED.put("raw", new AtomicLong());
        return made;
    }

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("application.id", "streams-" + env("TOPIC") + System.currentTimeMillis());
        settings.put("bootstrap.servers", env("BOOTSTRAP"));
        settings.put("num.stream.threads", "2");
        settings.put("auto.offset.reset", "earliest");
        settings.put("commit.interval.ms", "1000");
        settings.put("state.dir", env("FOLDER") + "/state");
        settings.put("statestore.cache.max.bytes", String.valueOf(64 << 20));
        settings.put("producer.compression.type", "lz4");
        settings.put("producer.linger.ms", "50");
        settings.put("max.poll.records", "5000");
        mark("FIRST");
        KafkaStreams streams = new KafkaStreams(topology().build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(3);
            return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        while (STORED.values().stream().anyMatch(stored -> stored.get() < PLAYS)) {
            Thread.sleep(50);
        }
        mark("LAST");
        Runtime.getRuntime().halt(0);
    }
}
