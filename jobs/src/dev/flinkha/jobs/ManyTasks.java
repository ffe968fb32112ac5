package dev.flinkha.jobs;

import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/** A source and so many stages that are not chained: stages times parallelism are the tasks that a JobManager schedules. */
public final class ManyTasks {
    private ManyTasks() {}

    public static void main(String[] args) throws Exception {
        Arguments arguments =
                Arguments.parse(
                        args,
                        "stages",
                        Environments.PARALLELISM,
                        Environments.CHECKPOINT_INTERVAL,
                        Environments.CHECKPOINT_DIRECTORY);
        StreamExecutionEnvironment environment = Environments.checkpointed(arguments);
        DataStream<Tuple2<Long, String>> stream = Text.stream(environment, Long.MAX_VALUE, 100).rebalance();
        for (long stage = 0; stage < arguments.number("stages", 10); stage++) {
            stream = stream.filter(line -> true).name("stage " + stage).uid("stage " + stage).disableChaining();
        }
        stream.sinkTo(new DiscardingSink<>());
        environment.execute("ManyTasks");
    }
}
