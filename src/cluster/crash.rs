//! Why a program ended, in one sentence, from the end of its log.
//!
//! Of a Java exception the root cause says most: the innermost exception of the last `Caused by:` chain that is Flink's
//! or the user's. An exception of the JDK or of a library below it is named as well: it says what failed, and not what
//! for.

/// The longest text of one exception in a sentence, and of a log without any.
const LONGEST: usize = 500;

/// Packages of the JDK: their exceptions are whose code threw them.
const JDK: [&str; 5] = ["java.", "javax.", "jdk.", "sun.", "com.sun."];

/// Packages of libraries that Flink and its file systems bring: what they throw comes of what Flink or the user asked
/// of them.
const LIBRARIES: [&str; 19] = [
    "akka.",
    "com.amazonaws.",
    "com.azure.",
    "com.google.",
    "io.fabric8.",
    "io.netty.",
    "kotlin.",
    "okhttp3.",
    "org.apache.commons.",
    "org.apache.curator.",
    "org.apache.flink.shaded.",
    "org.apache.hadoop.",
    "org.apache.http.",
    "org.apache.logging.",
    "org.apache.pekko.",
    "org.apache.zookeeper.",
    "org.slf4j.",
    "scala.",
    "software.amazon.",
];

/// An exception of a stack trace.
#[derive(Debug, Default)]
struct Exception<'a> {
    class: &'a str,
    message: String,
    /// Where it was thrown: classes with their methods, the innermost first.
    frames: Vec<&'a str>,
}

impl Exception<'_> {
    /// Flink's or the user's: its class is, or their code has thrown one of the JDK's.
    fn is_own(&self) -> bool {
        let by_jdk = |name: &str| JDK.iter().any(|package| name.starts_with(package));
        let by_library = |name: &str| LIBRARIES.iter().any(|package| name.starts_with(package));
        if !by_jdk(self.class) {
            return !by_library(self.class);
        }
        self.frames.iter().find(|frame| !by_jdk(frame)).is_some_and(|frame| !by_library(frame))
    }

    fn sentence(&self) -> String {
        if self.message.is_empty() { self.class.to_owned() } else { format!("{}: {}", self.class, head(&self.message)) }
    }
}

/// The cause, as the end of a log tells it.
pub fn sentence(log: &str) -> String {
    let chain = last_chain(log);
    let Some(innermost) = chain.last() else { return tail(log) };
    let own = chain.iter().rev().find(|exception| exception.is_own()).unwrap_or(innermost);
    if std::ptr::eq(own, innermost) {
        return own.sentence();
    }
    format!("{}, caused by {}", own.sentence(), innermost.sentence())
}

/// The last exception of a log, with its causes.
fn last_chain(log: &str) -> Vec<Exception<'_>> {
    let mut chain: Vec<Exception<'_>> = Vec::new();
    // Suppressed exceptions, and their causes, are indented.
    let (mut suppressed, mut in_message) = (false, false);
    for line in log.lines() {
        let text = line.trim();
        if let Some(frame) = text.strip_prefix("at ") {
            in_message = false;
            if let Some(exception) = chain.last_mut().filter(|_| !suppressed) {
                exception.frames.push(frame.rsplit_once('/').map_or(frame, |(_, frame)| frame));
            }
        } else if text.starts_with("Suppressed: ") {
            (suppressed, in_message) = (true, false);
        } else if text.starts_with("... ") && text.ends_with(" more") {
            in_message = false;
        } else if let Some(cause) = line.strip_prefix("Caused by: ") {
            (suppressed, in_message) = (false, true);
            chain.extend(exception(cause, true));
        } else if let Some(first) = text.strip_prefix("Caused by: ").map_or_else(|| exception(text, false), |_| None) {
            (suppressed, in_message) = (false, true);
            chain = vec![first];
        } else if in_message && let Some(exception) = chain.last_mut() {
            // A message may have several lines.
            if !exception.message.is_empty() && !text.is_empty() {
                exception.message.push(' ');
            }
            exception.message.push_str(text);
        }
    }
    chain
}

/// The exception that begins with this line of a stack trace. `is_one`: the line is known to begin one.
fn exception(line: &str, is_one: bool) -> Option<Exception<'_>> {
    let line = match line.strip_prefix("Exception in thread ") {
        Some(thread) => thread.split_once("\" ").map_or(thread, |(_, rest)| rest),
        None => line,
    };
    let (class, message) = line.split_once(": ").unwrap_or((line, ""));
    let class = class.trim_end_matches(':');
    let is_class = class.contains('.') && class.chars().all(|c| c.is_alphanumeric() || "._$".contains(c));
    let is_named_so = ["Exception", "Error", "Throwable", "Failure"].iter().any(|end| class.ends_with(end));
    let found = || Exception { class, message: words(message), frames: Vec::new() };
    (is_class && (is_one || is_named_so)).then(found)
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn head(text: &str) -> String {
    let cut = text.char_indices().nth(LONGEST).map(|(end, _)| end);
    cut.map_or_else(|| text.to_owned(), |end| format!("{}…", text.get(..end).unwrap_or_default()))
}

/// How often something has ended.
pub fn times(count: i32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The end of a text as one line: the last words of a program say most about its end.
pub fn tail(text: &str) -> String {
    let line = words(text);
    let excess = line.chars().count().saturating_sub(LONGEST);
    if excess == 0 { line } else { std::iter::once('…').chain(line.chars().skip(excess)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_cause_is_the_innermost_exception_of_flink_or_the_user() {
        for (log, expected) in [
            (
                "2026-01-01 ERROR org.apache.flink.runtime.Entrypoint - Could not start cluster entrypoint.\n\
                 org.apache.flink.runtime.entrypoint.ClusterEntrypointException: Failed to initialize the cluster.\n\
                 \tat org.apache.flink.runtime.Entrypoint.run(Entrypoint.java:1)\n\
                 Caused by: java.io.IOException: Could not create FileSystem\n\
                 \tat org.apache.flink.runtime.blob.BlobUtils.create(BlobUtils.java:1)\n\
                 \t... 3 more\n\
                 Caused by: org.apache.flink.core.fs.UnsupportedFileSystemSchemeException: Could not find a file system \
                 for scheme 's3'.\n\
                 \tat org.apache.flink.core.fs.FileSystem.get(FileSystem.java:1)\n\t... 5 more\n",
                "org.apache.flink.core.fs.UnsupportedFileSystemSchemeException: Could not find a file system for scheme \
                 's3'.",
            ),
            (
                "org.apache.flink.client.program.ProgramInvocationException: The main method caused an error: boom\n\
                 \tat org.apache.flink.client.ClientUtils.run(ClientUtils.java:1)\n\
                 Caused by: java.lang.IllegalStateException: boom\n\
                 \tat java.base/java.util.Optional.orElseThrow(Optional.java:1)\n\
                 \tat com.example.App.main(App.java:7)\n\t... 9 more\n",
                "java.lang.IllegalStateException: boom",
            ),
            (
                "Exception in thread \"main\" org.apache.flink.util.FlinkException: no HA storage\n\
                 \tat org.apache.flink.X.y(X.java:1)\n\
                 \tSuppressed: com.example.Close: late\n\t\tat com.example.A.b(A.java:1)\n\
                 \tCaused by: com.example.Other: no\n\
                 Caused by: com.amazonaws.SdkClientException: Unable to execute HTTP request\n\
                 \tat com.amazonaws.http.Client.go(Client.java:1)\n\
                 Caused by: java.net.UnknownHostException: minio\n\
                 \tat java.base/java.net.InetAddress.get(InetAddress.java:1)\n\
                 \tat com.amazonaws.Dns.resolve(Dns.java:1)\n",
                "org.apache.flink.util.FlinkException: no HA storage, caused by java.net.UnknownHostException: minio",
            ),
        ] {
            assert_eq!(sentence(log), expected);
        }
    }

    #[test]
    fn a_message_of_many_lines_is_read_once() {
        let log = format!("x.YException: begin\n{}\n", "a\n\n".repeat(10));
        assert_eq!(sentence(&log), format!("x.YException: begin{}", " a".repeat(10)));
    }

    #[test]
    fn the_last_exception_counts_and_its_message_may_have_lines() {
        let log = "com.example.FirstException: harmless\n\tat a.B.c(B.java:1)\nINFO going on\n\
                   com.example.LastException: line one\n  line two\n\tat a.B.c(B.java:1)\nINFO bye\n";
        assert_eq!(sentence(log), "com.example.LastException: line one line two");
        assert_eq!(
            sentence("Caused by: com.example.Cut: it began before\n\tat a.B.c"),
            "com.example.Cut: it began before"
        );
    }

    #[test]
    fn a_log_without_an_exception_is_told_by_its_last_words() {
        assert_eq!(sentence("exec: java: not found\n"), "exec: java: not found");
        assert_eq!(sentence("see java.util.concurrent.Future: nothing"), "see java.util.concurrent.Future: nothing");
        let line = sentence(&format!("{} the end", "x".repeat(2000)));
        assert_eq!(line.chars().count(), LONGEST + 1);
        assert!(line.ends_with("the end"));
        let long = sentence(&format!("com.example.LongException: {}", "y".repeat(2000)));
        assert!(long.starts_with("com.example.LongException: yyy") && long.chars().count() < 600);
    }
}
