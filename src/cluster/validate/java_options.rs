//! Decides whether options of a JVM set what high availability owns.

use crate::api::owned;

/// Beginning of the keys of Flink's configuration that hold options of JVMs (`CoreOptions`, Flink 1.20 to 2.3):
/// `env.java.opts.all`, `env.java.default-opts.jobmanager` and the like.
pub const KEYS: &str = "env.java.";

/// Variables of the environment that hold options of a JVM: those of Flink's scripts (`config.sh` and
/// `flink-console.sh`, 1.20 to 2.3), and those of the JDK.
pub const VARIABLES: [&str; 7] = [
    "JVM_ARGS",
    "FLINK_ENV_JAVA_OPTS",
    "FLINK_ENV_JAVA_OPTS_JM",
    "FLINK_ENV_JAVA_OPTS_TM",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
];

/// System properties of Flink's client of the API server, which have precedence over the variables that the operator
/// sets (`io.fabric8.kubernetes.client.Config` 6.9 to 7.3, which Flink 1.20 to 2.3 contains).
const OF_CLIENT: [(&str, &str); 3] = [
    ("kubernetes.master", "is owned by high availability: it leads Flink to its gateway; remove it"),
    ("kubernetes.namespace", "is owned by high availability: it is the resource's namespace; remove it"),
    ("no.proxy", "hides that Flink reaches its gateway without a proxy; use the variable NO_PROXY instead"),
];

/// What is wrong with options of a JVM. The system properties of Flink's own keys have no effect, so nobody sets them
/// on purpose.
pub fn problems(options: &str) -> Vec<String> {
    properties(options).filter_map(|key| Some(format!("the property {key} {}", reason(key)?))).collect()
}

fn reason(key: &str) -> Option<&'static str> {
    let of_client = OF_CLIENT.iter().find(|(owned, _)| *owned == key).map(|(_, reason)| *reason);
    of_client.or_else(|| owned::FLINK_CONFIGURATION.iter().find(|group| group.contains(key)).map(|group| group.reason))
}

/// Keys that options set with `-D`.
fn properties(options: &str) -> impl Iterator<Item = &str> {
    let words = options.split(|character: char| character.is_whitespace() || "\"'".contains(character));
    words.filter_map(|word| word.strip_prefix("-D")).map(|word| word.split_once('=').map_or(word, |(key, _)| key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_high_availability_owns_is_found_among_options_and_nothing_else() {
        for (options, expected) in [
            (
                "-Xmx1g -Dkubernetes.master=https://10.0.0.1",
                "the property kubernetes.master is owned by high availability",
            ),
            ("'-Dno.proxy=example.org'", "use the variable NO_PROXY instead"),
            ("-XX:+UseG1GC \"-Drest.port=9\"", "the property rest.port is an address or port that follows"),
            ("-Dhigh-availability.type=none", "use spec.highAvailability instead"),
            ("-Dkubernetes.namespace", "the property kubernetes.namespace is owned"),
        ] {
            let found = problems(options);
            assert!(found.len() == 1 && found[0].contains(expected), "{options}: {found:?}");
        }
        for options in [
            "",
            "-Dlog4j2.formatMsgNoLookups=true -Dfile.encoding=UTF-8",
            "-Dkubernetes.request.timeout=3000 -Dhttp.proxy=http://proxy:3128",
            "--add-opens=java.base/java.util=ALL-UNNAMED -D",
            "rest.port",
        ] {
            assert_eq!(problems(options), Vec::<String>::new(), "{options}");
        }
    }
}
