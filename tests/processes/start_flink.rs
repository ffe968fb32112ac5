//! The script that starts Flink in a pod, run on real distributions: what Flink's own scripts make of the configuration
//! that it puts together.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::flink::java;
use crate::support::host::Directory;
use crate::support::script;
use flinkha::cluster::build::{Environment, build, config, configuration_secrets, job_manager, jvm_options, pod};
use flinkha::cluster::merge::merge;
use flinkha::cluster::{Cluster, validate::validate};
use serde_json::{Value, json};

/// A component of Flink that only tells how Flink's own scripts read the configuration.
const REPORT: &str = r#"#!/usr/bin/env bash
bin=$(cd "$(dirname "$0")" && pwd)
. "$bin"/config.sh
echo "arguments: $*"
echo "java: $FLINK_ENV_JAVA_OPTS"
echo "$YAML_CONF"
"#;

/// A component that tells the flags of the JVM that Flink's own scripts would start (`flink-console.sh`).
const FLAGS: &str = r#"#!/usr/bin/env bash
bin=$(cd "$(dirname "$0")" && pwd)
. "$bin"/config.sh
FLINK_ENV_JAVA_OPTS=$(eval echo "$FLINK_ENV_JAVA_OPTS $FLINK_ENV_JAVA_OPTS_JM")
"$JAVA_RUN" $JVM_ARGS $FLINK_ENV_JAVA_OPTS -XX:+PrintFlagsFinal -version 2>&1 |
  sed -n -e 's/^ *[a-z0-9_]* *\([A-Z][A-Za-z0-9]*\) *:*= *\([^ ]*\).*/\1: \2/p' \
    -e 's/^Error/&/p' -e 's/.*Server VM .*(build [^,]*, \(.*\))$/mode: \1/p'
"#;

struct Image {
    directory: Directory,
    home: PathBuf,
}

impl Image {
    /// The distribution as an image has it; `change` changes its conf directory.
    fn of(version: &str, change: impl FnOnce(&Path)) -> Self {
        let distribution = PathBuf::from(script("rig/flink-dist", &[version]));
        let directory = Directory::new("image");
        let home = directory.sub("flink");
        for (part, how) in [("bin", "-R"), ("conf", "-R"), ("lib", "-Rs")] {
            let copied = Command::new("cp").arg(how).arg(distribution.join(part)).arg(&home).status().unwrap();
            assert!(copied.success());
        }
        for (component, text) in [("report", REPORT), ("flags", FLAGS)] {
            let component = directory.write(&format!("flink/bin/{component}.sh"), text);
            assert!(Command::new("chmod").arg("+x").arg(component).status().unwrap().success());
        }
        change(&home.join("conf"));
        Self { directory, home }
    }

    /// Starts the report with the ConfigMap that the operator makes, and returns its lines by key.
    fn start(&self) -> BTreeMap<String, String> {
        self.run(pod::START_FLINK).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same with mounted Secrets.
    fn start_with_secrets(&self) -> Result<BTreeMap<String, String>, String> {
        self.run(&format!("{}{}", configuration_secrets::ADD_SECRETS, pod::START_FLINK))
    }

    fn secret(&self, place: &str, key: &str, value: &str) {
        fs::write(self.directory.sub(&format!("secrets/{place}")).join(key), value).unwrap();
    }

    /// The flags of a JobManager's JVM, with these variables of the image or the user.
    fn flags(&self, cluster: &Cluster, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        let job_managers = build(cluster, &environment()).job_managers;
        let flink = &job_managers["spec"]["template"]["spec"]["containers"][0];
        let given = flink["env"].as_array().unwrap().iter().find(|one| one["name"] == jvm_options::VARIABLE);
        let given = given.map(|given| (jvm_options::VARIABLE, given["value"].as_str().unwrap()));
        let variables: Vec<_> = variables.iter().copied().chain(given).collect();
        self.start_component("flags", flink["command"][2].as_str().unwrap(), &variables).unwrap()
    }

    /// What the script made of it, or what it said on its way to fail.
    fn run(&self, script: &str) -> Result<BTreeMap<String, String>, String> {
        self.start_component("report", script, &[])
    }

    fn start_component(
        &self,
        component: &str,
        script: &str,
        variables: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, String> {
        let files = config::config_map(&cluster(&json!({})), &environment())["data"].clone();
        let (ours, conf) = (self.directory.sub("ours"), self.directory.sub("conf"));
        for (name, content) in files.as_object().unwrap() {
            fs::write(ours.join(name), content.as_str().unwrap()).unwrap();
        }
        // As a container that is restarted finds it.
        fs::write(conf.join("left-over.yaml"), "").unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "start-flink", component, "-D", "rest.address=10.0.0.1"]);
        command.envs(variables.iter().copied());
        command.env("FLINK_HOME", &self.home).env("FLINK_CONF_DIR", &conf).env("FLINKHA_CONFIGURATION", &ours);
        command.env("FLINKHA_SECRETS", self.directory.path().join("secrets"));
        command.env("FLINKHA_OWNED_KEYS", configuration_secrets::owned_keys());
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        assert!(!conf.join("left-over.yaml").exists());
        assert_eq!(fs::read_to_string(conf.join("log4j-console.properties")).unwrap(), "ours");
        assert!(conf.join("log4j-cli.properties").exists(), "the image's other files stay");
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().filter_map(|line| line.split_once(": "));
        Ok(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

fn environment() -> Environment {
    Environment { gateway_image: "flinkha:test".to_owned(), gateway_log: "info".to_owned(), ..Environment::default() }
}

/// A cluster with this in its spec, too.
fn cluster(spec: &Value) -> Cluster {
    let mut resource = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": "flink", "uid": "1" },
        "spec": {
            "image": "flink",
            "flinkConfiguration": { "parallelism.default": 7, "state.backend.incremental": "true", "pipeline.name": "it's: \"quoted\" #1" },
            "logConfiguration": { "log4j-console.properties": "ours" },
            "highAvailability": { "storageDir": "file:///flink/ha" },
            "jobManager": { "resources": { "limits": { "memory": "2Gi" } } },
        },
    });
    merge(&mut resource["spec"], spec.clone());
    validate(&serde_json::from_value(resource).unwrap()).unwrap()
}

fn assert_ours(report: &BTreeMap<String, String>) {
    for (key, value) in [
        ("arguments", "start-foreground -D rest.address=10.0.0.1"),
        ("high-availability.cluster-id", "flink.demo"),
        ("jobmanager.bind-host", "0.0.0.0"),
        ("jobmanager.memory.process.size", "2147483648b"),
        ("parallelism.default", "7"),
        ("pipeline.name", "'it''s: \"quoted\" #1'"),
        ("state.backend.incremental", "true"),
    ] {
        assert_eq!(report.get(key).map(String::as_str), Some(value), "{key} in {report:#?}");
    }
    assert!(
        report["java"].contains("--add-opens=java.base/java.lang=ALL-UNNAMED"),
        "the image's java options stay: {}",
        report["java"]
    );
}

#[test]
fn the_images_configuration_stays_where_ours_says_nothing() {
    for version in ["2.3.0", "1.20.5"] {
        let report = Image::of(version, |_| ()).start();
        assert_ours(&report);
        assert_eq!(report["jobmanager.execution.failover-strategy"], "region", "{version}: the image's nested key");
    }
}

#[test]
fn a_key_that_the_image_writes_flat_is_replaced_too() {
    let flat = "parallelism.default: 3\npipeline.jars:\n- a\n- b\nrest.port: 9999\n# the end\ntaskmanager.numberOfTaskSlots: 5\n";
    let image = Image::of("2.3.0", |conf| {
        let nested = fs::read_to_string(conf.join("config.yaml")).unwrap();
        let java = nested.lines().take_while(|line| !line.starts_with("jobmanager")).collect::<Vec<_>>().join("\n");
        fs::write(conf.join("config.yaml"), format!("{java}\n{flat}")).unwrap();
    });
    let report = image.start();
    assert_ours(&report);
    assert_eq!(report["rest.port"], "8081");
    assert_eq!(report["taskmanager.numberOfTaskSlots"], "5", "what follows a replaced key stays");
}

#[test]
fn an_older_configuration_file_becomes_yaml() {
    let image = Image::of("1.20.5", |conf| {
        let java = "--add-opens=java.base/java.lang=ALL-UNNAMED";
        let old = format!("# old\nenv.java.opts.all: {java}\nparallelism.default: 3 # three\nweb.title: it's old\n\n");
        fs::remove_file(conf.join("config.yaml")).unwrap();
        fs::write(conf.join("flink-conf.yaml"), old).unwrap();
    });
    let report = image.start();
    assert_ours(&report);
    assert!(report["web.title"].contains("old"), "{report:#?}");
}

#[test]
fn keys_of_secrets_are_below_ours() {
    for version in ["2.3.0", "1.20.5"] {
        let image = Image::of(version, |_| ());
        for (place, key, value) in [
            ("0.s3", "s3.secret-key", "hidden\n"),
            ("0.s3", "parallelism.default", "3"),
            ("0.s3", "some.token", "a\"b\\c 'd' $(x) `y` %s #1: z\n\n"),
            ("0.s3", "lines", "one\r\ntwo"),
            ("0.s3", "jobmanager.execution.failover-strategy", "full"),
            ("0.s3", "both", "first"),
            ("1.other", "both", "second"),
        ] {
            image.secret(place, key, value);
        }
        let report = image.start_with_secrets().unwrap();
        assert_ours(&report);
        for (key, value) in [
            ("s3.secret-key", "hidden"),
            ("some.token", r#"'a"b\c ''d'' $(x) `y` %s #1: z'"#),
            ("lines", r#""one\r\ntwo""#),
            ("jobmanager.execution.failover-strategy", "full"),
            ("both", "second"),
        ] {
            assert_eq!(report.get(key).map(String::as_str), Some(value), "{key} in {report:#?}");
        }
        image.secret("0.s3", "s3.secret-key", "changed");
        let again = image.start_with_secrets().unwrap();
        assert_eq!(again["s3.secret-key"], "changed", "a container that starts again");
        image.secret("0.s3", "s3.secret-key", "changed again");
        image.secret("0.s3", "rest.port", "1");
        let again = image.start_with_secrets().unwrap();
        assert_eq!(
            again["s3.secret-key"], "changed",
            "a Secret that is wrong does not stop a pod that had a right one"
        );
        assert_ours(&again);
    }
}

#[test]
fn a_key_of_a_secret_that_is_ours_is_refused_with_a_sentence() {
    for (key, told) in [
        ("rest.port", "the key rest.port of Secret other.one is owned by the operator; remove it from the Secret"),
        ("high-availability.type", "the key high-availability.type of Secret other.one is owned"),
        ("taskmanager.memory.process.size", "is owned by the operator"),
        ("1key", "the key 1key of Secret other.one is no key of Flink's configuration"),
    ] {
        let image = Image::of("2.3.0", |_| ());
        image.secret("0.other.one", key, "hidden");
        let refused = image.start_with_secrets().unwrap_err();
        assert!(refused.contains(told) && !refused.contains("hidden"), "{refused}");
    }
}

/// A second collector ends the JVM, wherever it is chosen.
#[test]
fn a_job_managers_jvm_uses_the_serial_collector_and_c1_unless_something_else_is_chosen() {
    const ONE: &str = "-XX:+UseParallelGC";
    let session = cluster(&json!({}));
    let plain = Image::of("2.3.0", |_| ());
    let chosen = Image::of("2.3.0", |conf| {
        let text = fs::read_to_string(conf.join("config.yaml")).unwrap();
        fs::write(conf.join("config.yaml"), format!("{text}\nenv.java.opts.jobmanager: {ONE}\n")).unwrap();
    });
    let both = format!("{ONE} -XX:TieredStopAtLevel=3");
    for (what, image, variables, serial, level) in [
        ("nothing", &plain, vec![], "true", "1"),
        ("the image's configuration", &chosen, vec![], "false", "1"),
        ("Flink's own variable", &plain, vec![("FLINK_ENV_JAVA_OPTS_JM", ONE)], "false", "1"),
        ("arguments", &plain, vec![("JVM_ARGS", both.as_str())], "false", "3"),
        ("the launcher's variable", &plain, vec![("JDK_JAVA_OPTIONS", both.as_str())], "false", "3"),
        ("the JVM's variable", &plain, vec![("JAVA_TOOL_OPTIONS", both.as_str())], "false", "3"),
        ("the same collector", &plain, vec![("JAVA_TOOL_OPTIONS", "-XX:+UseSerialGC")], "true", "1"),
    ] {
        let flags = image.flags(&session, &variables);
        let found = |name: &str| flags.get(name).map(String::as_str);
        assert_eq!(found("UseSerialGC"), Some(serial), "{what}: {:?}", found("Error"));
        let parallel = if serial == "true" { "false" } else { "true" };
        assert_eq!(found("UseParallelGC"), Some(parallel), "{what}");
        assert_eq!(found("TieredStopAtLevel"), Some(level), "{what}");
    }
}

#[test]
fn an_applications_jvm_uses_the_serial_collector_and_is_no_client() {
    let image = Image::of("2.3.0", |_| ());
    let flags = |options: &str| {
        let job = json!({ "jarURI": "local:///app.jar" });
        image.flags(&cluster(&json!({ "job": job, "jobManager": { "jvmOptions": options } })), &[])
    };
    let (flags, usual) = (flags("Default"), flags("None"));
    assert_eq!(flags["UseSerialGC"], "true");
    for name in ["TieredStopAtLevel", "ReservedCodeCacheSize", "MaxRAM", "TieredCompilation", "CICompilerCount"] {
        assert_eq!(flags[name], usual[name], "{name}");
    }
    assert_eq!(flags["TieredStopAtLevel"], "4");
}

/// A recorded archive of the classes of `java -version`, as `examples/class-archive` leaves one in an image.
fn archive(image: &Image, options: &[&str]) -> PathBuf {
    let directory = image.directory.sub("flink/class-archives");
    let archive = directory.join("jobmanager.jsa");
    // The archive that was there, if any, is one that nobody may write.
    let _ = fs::remove_file(&archive);
    let mut java = Command::new(java());
    java.args(["-Xshare:dump", &format!("-XX:SharedArchiveFile={}", archive.display())]).args(options);
    let output = java.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let length = fs::metadata(&archive).unwrap().len();
    fs::write(directory.join("jobmanager.length"), format!("{length}\n")).unwrap();
    archive
}

#[test]
fn a_job_managers_jvm_maps_the_images_archive_of_classes_if_it_is_whole_and_fits() {
    let image = Image::of("2.3.0", |_| ());
    let (session, without) = (cluster(&json!({})), cluster(&json!({ "jobManager": { "jvmOptions": "None" } })));
    let start = |cluster: &Cluster, variables: &[(&str, &str)]| {
        let flags = image.flags(cluster, variables);
        assert!(!flags.contains_key("Error"), "{:?}", flags["Error"]);
        // A flag without a value is followed by its kind.
        let file = flags.get("SharedArchiveFile").filter(|file| file.starts_with('/')).cloned();
        (file, flags["mode"].clone())
    };
    let (none, usual) = start(&session, &[]);
    assert_eq!((none, usual.as_str()), (None, "mixed mode, emulated-client, sharing"));

    let path = archive(&image, &[]);
    let found = Some(path.display().to_string());
    assert_eq!(start(&session, &[]), (found.clone(), usual.clone()));
    assert_eq!(start(&without, &[]).0, None, "whoever wants no options gets none");
    let (_, mode) = start(&session, &[("JVM_ARGS", "-Xshare:off")]);
    assert!(!mode.contains("sharing"), "what image or user say has precedence: {mode}");

    // Recorded with jars that the JVM has not: the JVM itself finds that out.
    let mut jars = fs::read_dir(image.home.join("lib")).unwrap().map(|jar| jar.unwrap().path());
    let jar = jars.find(|jar| jar.display().to_string().contains("log4j-api")).unwrap();
    let list = image.directory.write("classes", "org/apache/logging/log4j/Logger\n");
    archive(&image, &[&format!("-XX:SharedClassListFile={}", list.display()), "-cp", &jar.display().to_string()]);
    let (file, mode) = start(&session, &[]);
    assert!(file == found && !mode.contains("sharing"), "{mode}");

    let whole = fs::read(archive(&image, &[])).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(start(&session, &[]), (None, usual), "half an archive would end the JVM");
}

/// Answers requests with these codes, one after the other, and tells how many there were.
fn answers(codes: &'static [u16]) -> (u16, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        for code in codes {
            let (mut connection, _) = listener.accept().unwrap();
            let request = BufReader::new(&connection).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
            assert_eq!(request.collect::<Vec<_>>(), ["GET /startz HTTP/1.0", "Host: localhost"]);
            write!(connection, "HTTP/1.0 {code} Word\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
        codes.len()
    });
    (port, served)
}

#[test]
fn a_container_that_starts_again_waits_for_its_turn() {
    let directory = Directory::new("turn");
    let conf = directory.sub("conf");
    let start = |port: u16| {
        let script = job_manager::RESTART_TURN.replace("6181", &port.to_string());
        let begin = Instant::now();
        let output = Command::new("/bin/sh").args(["-euc", &script]).env("FLINK_CONF_DIR", &conf).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), begin.elapsed())
    };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let told = "waiting: another JobManager was just elected, and its jobs do not run yet\n";

    let (port, served) = answers(&[200]);
    assert_eq!(start(port).0, "", "the first start");
    fs::write(conf.join("config.yaml"), "rest.port: 8081\n").unwrap();
    assert_eq!(start(port).0, "");
    assert_eq!(served.join().unwrap(), 1, "the first start has asked nobody");

    let (port, served) = answers(&[503, 503, 200]);
    let (said, lasted) = start(port);
    assert_eq!(said, told);
    assert!(lasted >= Duration::from_millis(400), "{lasted:?}");
    assert_eq!(served.join().unwrap(), 3);
    let (port, _) = answers(&[404]);
    assert_eq!(start(port).0, "", "a gateway of a former version");
    assert_eq!(start(nobody).0, "", "no gateway");
}
