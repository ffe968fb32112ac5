package dev.flinkha.jobs;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.datagen.source.GeneratorFunction;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The text inside the jar, as a replayable source of (index from 0, line), over and over. Blank lines are left out. */
final class Text implements GeneratorFunction<Long, Tuple2<Long, String>> {
    private static final long serialVersionUID = 1L;
    private static final String RESOURCE = "/text/alice.txt";

    private transient List<String> lines;

    /**
     * The first {@code count} lines at {@code rate} lines per second; a rate of 0 is as fast as can be. One subtask, so
     * that the order is that of the text; its position is Flink's own checkpointed source state.
     */
    static SingleOutputStreamOperator<Tuple2<Long, String>> stream(
            StreamExecutionEnvironment environment, long count, long rate) {
        DataGeneratorSource<Tuple2<Long, String>> source =
                new DataGeneratorSource<>(
                        new Text(),
                        count,
                        rate == 0 ? RateLimiterStrategy.noOp() : RateLimiterStrategy.perSecond(rate),
                        Types.TUPLE(Types.LONG, Types.STRING));
        return environment
                .fromSource(source, WatermarkStrategy.noWatermarks(), "text")
                .setParallelism(1)
                .uid("text");
    }

    static List<String> lines() throws IOException {
        try (BufferedReader reader =
                new BufferedReader(
                        new InputStreamReader(Text.class.getResourceAsStream(RESOURCE), StandardCharsets.UTF_8))) {
            return reader.lines().filter(line -> !line.isBlank()).collect(Collectors.toList());
        }
    }

    /** As {@code wc -w} sees them. */
    static String[] words(String line) {
        return line.trim().split("\\s+");
    }

    @Override
    public void open(SourceReaderContext context) throws IOException {
        lines = lines();
    }

    @Override
    public Tuple2<Long, String> map(Long index) {
        return Tuple2.of(index, lines.get((int) (index % lines.size())));
    }
}
