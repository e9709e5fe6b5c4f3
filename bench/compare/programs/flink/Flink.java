import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;

/**
 * The job in Flink SQL: one source, the raw plays and four metrics as a statement set, JDBC sinks that upsert.
 * Two slots in one JVM. Argument: windows (a window is written once it is over) or continuous (each change is).
 * The topic is read to where it ends; that ends the last windows too.
 */
public class Flink {
    /** A table of metrics: its window in minutes, and its two keys. */
    record Metric(String table, int minutes, String first, String second) {}

    static final List<Metric> METRICS = List.of(
        new Metric("m_engagement", 5, "subscription_type", "age_group"),
        new Metric("m_content", 60, "song_id", "genre"),
        new Metric("m_geography", 5, "country", "source"),
        new Metric("m_device", 5, "device_type", "os"));
    static final Map<String, String> KINDS = Map.of(
        "duration_ms", "BIGINT", "listened_ms", "BIGINT",
        "skipped", "BOOLEAN", "liked", "BOOLEAN", "completed", "BOOLEAN");
    static final String COUNTS = "COUNT(*), SUM(CASE WHEN skipped THEN CAST(1 AS BIGINT) ELSE 0 END), "
        + "SUM(CASE WHEN liked THEN CAST(1 AS BIGINT) ELSE 0 END), SUM(listened_ms), SUM(duration_ms), "
        + "COUNT(DISTINCT user_id)";

    static String env(String name) {
        return System.getenv("BENCH_" + name);
    }

    static String sink(String table) {
        return "WITH ('connector'='jdbc','url'='" + env("JDBC") + "?reWriteBatchedInserts=true',"
            + "'username'='postgres','password'='postgres','sink.buffer-flush.max-rows'='5000',"
            + "'sink.buffer-flush.interval'='1s','table-name'='" + table + "')";
    }

    static String columns(String time) {
        List<String> made = new ArrayList<>();
        for (String name : env("FIELDS").split(",")) {
            made.add(name + " " + (name.equals("event_time") ? time : KINDS.getOrDefault(name, "STRING")));
        }
        return String.join(", ", made);
    }

    static Configuration settings(boolean windows) {
        Configuration made = new Configuration();
        made.setString("parallelism.default", "2");
        made.setString("taskmanager.numberOfTaskSlots", "2");
        made.setString("execution.checkpointing.interval", "10s");
        made.setString("execution.checkpointing.dir", "file://" + env("FOLDER") + "/checkpoints");
        made.setString("table.local-time-zone", "UTC");
        made.setString("table.exec.sink.upsert-materialize", "NONE");
        made.setString("pipeline.object-reuse", "true");
        if (!windows) {
            made.setString("table.exec.mini-batch.enabled", "true");
            made.setString("table.exec.mini-batch.allow-latency", "2 s");
            made.setString("table.exec.mini-batch.size", env("BATCH"));
        }
        return made;
    }

    static String select(Metric metric, boolean windows) {
        String keys = metric.first() + ", " + metric.second();
        if (windows) {
            return "SELECT window_start, " + keys + ", " + COUNTS + " FROM TABLE(TUMBLE(TABLE plays, "
                + "DESCRIPTOR(event_time), INTERVAL '" + metric.minutes() + "' MINUTES)) "
                + "GROUP BY window_start, window_end, " + keys;
        }
        String start = "TO_TIMESTAMP_LTZ(UNIX_TIMESTAMP(CAST(CAST(event_time AS TIMESTAMP(3)) AS STRING)) "
            + "/ " + metric.minutes() * 60 + " * " + metric.minutes() * 60 + ", 0)";
        return "SELECT CAST(begins AS TIMESTAMP(3)), " + keys + ", " + COUNTS
            + " FROM (SELECT *, " + start + " AS begins FROM plays) GROUP BY begins, " + keys;
    }

    static void mark(String name) {
        System.out.printf("%s %.3f%n", name, System.currentTimeMillis() / 1000.0);
    }

    public static void main(String[] arguments) throws Exception {
        boolean windows = arguments[0].equals("windows");
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings(windows)).build());
        tables.executeSql("CREATE TABLE plays (" + columns("TIMESTAMP_LTZ(3)")
            + ", WATERMARK FOR event_time AS event_time - INTERVAL '10' MINUTES) WITH ('connector'='kafka',"
            + "'topic'='" + env("TOPIC") + "','properties.bootstrap.servers'='" + env("BOOTSTRAP") + "',"
            + "'properties.group.id'='flink','scan.startup.mode'='earliest-offset',"
            + "'scan.bounded.mode'='latest-offset','format'='json',"
            + "'json.timestamp-format.standard'='ISO-8601')");
        tables.executeSql("CREATE TABLE raw_plays (" + columns("TIMESTAMP(3)")
            + ", PRIMARY KEY (event_id) NOT ENFORCED) " + sink("raw"));
        StatementSet statements = tables.createStatementSet();
        statements.addInsertSql("INSERT INTO raw_plays SELECT "
            + env("FIELDS").replace("event_time", "CAST(event_time AS TIMESTAMP(3))") + " FROM plays");
        for (Metric metric : METRICS) {
            String keys = metric.first() + ", " + metric.second();
            tables.executeSql("CREATE TABLE " + metric.table() + " (window_start TIMESTAMP(3), "
                + metric.first() + " STRING, " + metric.second() + " STRING, plays BIGINT, skips BIGINT, "
                + "likes BIGINT, listened_ms BIGINT, duration_ms BIGINT, listeners BIGINT, "
                + "PRIMARY KEY (window_start, " + keys + ") NOT ENFORCED) " + sink(metric.table()));
            statements.addInsertSql("INSERT INTO " + metric.table() + " " + select(metric, windows));
        }
        mark("FIRST");
        statements.execute().await();
        mark("LAST");
        System.exit(0);
    }
}
