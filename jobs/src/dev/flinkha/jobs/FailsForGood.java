package dev.flinkha.jobs;

import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/** Runs for a while, then throws and is not restarted: the job ends in the terminal state FAILED. */
public final class FailsForGood {
    private FailsForGood() {}

    public static void main(String[] args) throws Exception {
        Arguments arguments =
                Arguments.parse(
                        args,
                        "after-millis",
                        Environments.PARALLELISM,
                        Environments.CHECKPOINT_INTERVAL,
                        Environments.CHECKPOINT_DIRECTORY);
        StreamExecutionEnvironment environment = Environments.checkpointed(arguments);
        Configuration noRestart = new Configuration();
        noRestart.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
        environment.configure(noRestart);
        Text.stream(environment, Long.MAX_VALUE, 100)
                .map(new Bomb(arguments.number("after-millis", 5000)))
                .name("bomb")
                .sinkTo(new DiscardingSink<>());
        environment.execute("FailsForGood");
    }

    private static final class Bomb extends RichMapFunction<Tuple2<Long, String>, String> {
        private static final long serialVersionUID = 1L;

        private final long afterMillis;
        private transient long start;

        Bomb(long afterMillis) {
            this.afterMillis = afterMillis;
        }

        @Override
        public void open(OpenContext context) {
            start = System.nanoTime();
        }

        @Override
        public String map(Tuple2<Long, String> line) {
            if (System.nanoTime() - start >= TimeUnit.MILLISECONDS.toNanos(afterMillis)) {
                throw new IllegalStateException("failed for good after " + afterMillis + " ms, as asked");
            }
            return line.f1;
        }
    }
}
