package dev.flinkha.jobs;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Exactly-once, provably: writes {@code index TAB key TAB counter} for every line of the text, read over and over. The
 * key is the line's first word, the counter how often the key has come so far (keyed state). One ordered source makes
 * every line of the output predictable, so that {@code jobs/verify} finds any gap, repeat or lost state.
 */
public final class KeyedSequence {
    private KeyedSequence() {}

    public static void main(String[] args) throws Exception {
        Arguments arguments =
                Arguments.parse(
                        args,
                        "output",
                        "lines",
                        "rate",
                        Environments.PARALLELISM,
                        Environments.CHECKPOINT_INTERVAL,
                        Environments.CHECKPOINT_DIRECTORY);
        long lines = arguments.number("lines", 0);
        StreamExecutionEnvironment environment = Environments.checkpointed(arguments);
        Text.stream(environment, lines == 0 ? Long.MAX_VALUE : lines, arguments.number("rate", 100))
                .keyBy(line -> Text.words(line.f1)[0])
                .process(new Counter())
                .uid("counter")
                .name("counter")
                .sinkTo(Environments.exactlyOnceFiles(arguments.required("output")))
                .uid("files")
                .name("files");
        environment.execute("KeyedSequence");
    }

    private static final class Counter extends KeyedProcessFunction<String, Tuple2<Long, String>, String> {
        private static final long serialVersionUID = 1L;

        private transient ValueState<Long> counter;

        @Override
        public void open(OpenContext context) {
            counter = getRuntimeContext().getState(new ValueStateDescriptor<>("counter", Types.LONG));
        }

        @Override
        public void processElement(Tuple2<Long, String> line, Context context, Collector<String> out)
                throws Exception {
            Long before = counter.value();
            long now = before == null ? 1 : before + 1;
            counter.update(now);
            out.collect(line.f0 + "\t" + context.getCurrentKey() + "\t" + now);
        }
    }
}
