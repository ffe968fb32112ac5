package dev.flinkha.jobs;

import java.time.Duration;
import org.apache.flink.api.common.serialization.SimpleStringEncoder;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.BasePathBucketAssigner;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;

/** What the jobs share: their execution environment and their exactly-once sink. What is not set comes from the cluster. */
final class Environments {
    static final String PARALLELISM = "parallelism";
    static final String CHECKPOINT_INTERVAL = "checkpoint-interval-millis";
    static final String CHECKPOINT_DIRECTORY = "checkpoint-dir";

    private Environments() {}

    static StreamExecutionEnvironment checkpointed(Arguments arguments) {
        Configuration configuration = new Configuration();
        configuration.set(CoreOptions.DEFAULT_PARALLELISM, (int) arguments.number(PARALLELISM, 2));
        configuration.set(
                CheckpointingOptions.CHECKPOINTING_INTERVAL,
                Duration.ofMillis(arguments.number(CHECKPOINT_INTERVAL, 1000)));
        if (arguments.text(CHECKPOINT_DIRECTORY) != null) {
            configuration.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, arguments.text(CHECKPOINT_DIRECTORY));
        }
        // Flink's default waits a second and longer each time: that would be measured as recovery.
        configuration.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        configuration.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, Integer.MAX_VALUE);
        configuration.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofMillis(100));
        return StreamExecutionEnvironment.getExecutionEnvironment(configuration);
    }

    /** Part files directly in the directory, each finished by the checkpoint that covers it. */
    static FileSink<String> exactlyOnceFiles(String directory) {
        return FileSink.forRowFormat(new Path(directory), new SimpleStringEncoder<String>("UTF-8"))
                .withBucketAssigner(new BasePathBucketAssigner<>())
                .withRollingPolicy(OnCheckpointRollingPolicy.build())
                .build();
    }
}
