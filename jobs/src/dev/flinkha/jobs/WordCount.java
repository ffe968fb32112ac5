package dev.flinkha.jobs;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * Counts the words of a text and finishes. The result is in the job's accumulators {@code total-words} (as
 * {@code wc -w}) and {@code distinct-words}, and in --output, the most frequent word first.
 */
public final class WordCount {
    private static final TypeInformation<Tuple2<String, Long>> COUNT = Types.TUPLE(Types.STRING, Types.LONG);

    /** An event-time timer that fires when the input has ended: only then does the watermark get there. */
    private static final long END_OF_INPUT = Long.MAX_VALUE;

    private WordCount() {}

    public static void main(String[] args) throws Exception {
        Arguments arguments =
                Arguments.parse(
                        args,
                        "input",
                        "output",
                        "delay-millis",
                        Environments.PARALLELISM,
                        Environments.CHECKPOINT_INTERVAL,
                        Environments.CHECKPOINT_DIRECTORY);
        StreamExecutionEnvironment environment = Environments.checkpointed(arguments);
        long delay = arguments.number("delay-millis", 0);
        SingleOutputStreamOperator<String> results =
                lines(environment, arguments.text("input"))
                        .flatMap((String line, Collector<String> words) -> split(line, delay, words))
                        .returns(Types.STRING)
                        .name("split")
                        .keyBy(word -> word)
                        .process(new Count())
                        .name("count")
                        .keyBy(count -> 0)
                        .process(new Report())
                        .setParallelism(1)
                        .name("report");
        if (arguments.text("output") == null) {
            results.sinkTo(new DiscardingSink<>()).setParallelism(1);
        } else {
            results.sinkTo(Environments.exactlyOnceFiles(arguments.text("output"))).setParallelism(1);
        }
        environment.execute("WordCount");
    }

    private static DataStream<String> lines(StreamExecutionEnvironment environment, String input) throws Exception {
        if (input == null) {
            return Text.stream(environment, Text.lines().size(), 0).map(line -> line.f1);
        }
        return environment.fromSource(
                FileSource.forRecordStreamFormat(new TextLineInputFormat(), new Path(input)).build(),
                WatermarkStrategy.noWatermarks(),
                "file");
    }

    private static void split(String line, long delay, Collector<String> words) throws InterruptedException {
        Thread.sleep(delay);
        for (String word : Text.words(line)) {
            if (!word.isEmpty()) {
                words.collect(word);
            }
        }
    }

    private static final class Count extends KeyedProcessFunction<String, String, Tuple2<String, Long>> {
        private static final long serialVersionUID = 1L;

        private transient ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void processElement(String word, Context context, Collector<Tuple2<String, Long>> out)
                throws Exception {
            Long before = count.value();
            count.update(before == null ? 1 : before + 1);
            context.timerService().registerEventTimeTimer(END_OF_INPUT);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Tuple2<String, Long>> out)
                throws Exception {
            out.collect(Tuple2.of(context.getCurrentKey(), count.value()));
        }
    }

    /** Flink does not restore accumulators after a failure, so they are only touched at the end, from state. */
    private static final class Report extends KeyedProcessFunction<Integer, Tuple2<String, Long>, String> {
        private static final long serialVersionUID = 1L;

        private final LongCounter total = new LongCounter();
        private final LongCounter distinct = new LongCounter();
        private transient ListState<Tuple2<String, Long>> counts;

        @Override
        public void open(OpenContext context) {
            counts = getRuntimeContext().getListState(new ListStateDescriptor<>("counts", COUNT));
            getRuntimeContext().addAccumulator("total-words", total);
            getRuntimeContext().addAccumulator("distinct-words", distinct);
        }

        @Override
        public void processElement(Tuple2<String, Long> count, Context context, Collector<String> out)
                throws Exception {
            counts.add(count);
            context.timerService().registerEventTimeTimer(END_OF_INPUT);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<String> out) throws Exception {
            List<Tuple2<String, Long>> sorted = new ArrayList<>();
            counts.get().forEach(sorted::add);
            sorted.sort(
                    Comparator.comparing((Tuple2<String, Long> count) -> -count.f1).thenComparing(count -> count.f0));
            for (Tuple2<String, Long> count : sorted) {
                total.add(count.f1);
                distinct.add(1L);
                out.collect(count.f0 + " " + count.f1);
            }
        }
    }
}
