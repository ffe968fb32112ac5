//! Real Flink JVMs from an unmodified distribution, one loopback address each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use flinkha::api::names::RPC_PORT;

use super::classes::Archives;
use super::classes::Role;
use super::host::port;
use super::pods;
use super::process::Process;
use super::process::Program;
use super::script;

/// Flink's configuration: flat keys.
pub type Configuration = BTreeMap<String, String>;

const JOB_MANAGER: &str = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint";
const APPLICATION: &str = "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint";
const TASK_MANAGER: &str = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner";

/// All addresses of a pod.
const ANY: &str = "0.0.0.0";

/// Where a JobManager answers to Flink's own processes. Flink 1.20 looks for the blob server of its own process on
/// localhost, so on one loopback only ports can part JobManagers.
pub fn rpc_address(pod: Ipv4Addr) -> SocketAddr {
    match pods::address(pod) {
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, port(pod)).into(),
        address => (address, RPC_PORT).into(),
    }
}

/// The address in what a leader publishes: `…@<address>/…`.
pub fn address_of(published: &str) -> Option<SocketAddr> {
    published.split_once('@')?.1.split('/').next()?.parse().ok()
}

/// The version that is tested.
pub fn version() -> String {
    std::env::var("FLINK_VERSION").unwrap_or_else(|_| "2.3.0".to_owned())
}

pub struct Distribution {
    home: PathBuf,
    /// The module flags that Flink's own configuration asks for.
    java_options: Vec<String>,
    archives: Archives,
}

/// Where a JVM lives and whom it asks for leadership.
pub struct Place<'a> {
    pub name: &'a str,
    pub address: Ipv4Addr,
    /// Its own: configuration, logs and temporary files.
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Distribution {
    pub fn of(version: &str, is_zookeeper: bool) -> Self {
        let home = PathBuf::from(script("rig/flink-dist", &[version]));
        let own = std::fs::read_to_string(home.join("conf/config.yaml")).expect("Flink's configuration");
        let own: serde_yaml::Value = serde_yaml::from_str(&own).expect("Flink's configuration in YAML");
        let java_options = own["env"]["java"]["opts"]["all"].as_str().expect("Flink's java options");
        let java_options = java_options.split_whitespace().map(str::to_owned).collect();
        Self { home, java_options, archives: Archives::of(version, is_zookeeper) }
    }

    /// `application`: the arguments of Flink's entrypoint for applications; a session cluster has none.
    pub fn job_manager(&self, place: &Place<'_>, configuration: &Configuration, application: &[String]) -> Process {
        let (rpc, address) = (rpc_address(place.address), pods::address(place.address).to_string());
        let (host, port) = (rpc.ip().to_string(), rpc.port().to_string());
        let of_pod = pods::are_of_ipv6();
        // Where pods are namespaces, as the operator says it.
        let bound = |address| if of_pod { ANY } else { address };
        let own = [
            ("jobmanager.rpc.address", &*host),
            ("jobmanager.bind-host", bound(&host)),
            ("jobmanager.rpc.port", &port),
            // The same with ZooKeeper.
            ("high-availability.jobmanager.port", &port),
            ("blob.server.port", if of_pod { "6124" } else { "0" }),
            ("rest.address", &address),
            ("rest.bind-address", bound(&address)),
            ("rest.port", "8081"),
            // REST answers are cached for three seconds by default: too old to measure with.
            ("web.refresh-interval", "50 ms"),
        ];
        let class = if application.is_empty() { JOB_MANAGER } else { APPLICATION };
        let options = [
            self.archives.options(Role::JobManager, &place.directory),
            owned(&["-Xmx320m", "-XX:MaxMetaspaceSize=256m"]),
        ]
        .concat();
        self.start(place, configuration, &own, options, class, application)
    }

    pub fn task_manager(&self, place: &Place<'_>, configuration: &Configuration) -> Process {
        let address = pods::address(place.address).to_string();
        let own = [
            ("taskmanager.host", &*address),
            ("taskmanager.bind-host", if pods::are_of_ipv6() { ANY } else { &address }),
            ("taskmanager.rpc.port", "6122"),
            ("taskmanager.data.port", "6121"),
            ("taskmanager.numberOfTaskSlots", "4"),
            // What Flink's start script works out of the size of the process.
            ("taskmanager.cpu.cores", "1"),
            ("taskmanager.memory.framework.heap.size", "128m"),
            ("taskmanager.memory.framework.off-heap.size", "64m"),
            ("taskmanager.memory.jvm-metaspace.size", "256m"),
            ("taskmanager.memory.jvm-overhead.min", "64m"),
            ("taskmanager.memory.jvm-overhead.max", "64m"),
            ("taskmanager.memory.task.heap.size", "192m"),
            ("taskmanager.memory.task.off-heap.size", "0"),
            ("taskmanager.memory.network.min", "32m"),
            ("taskmanager.memory.network.max", "32m"),
            ("taskmanager.memory.managed.size", "32m"),
        ];
        // In a pod, Flink makes a name of the pod's address.
        let name = (!pods::are_of_ipv6()).then_some(("taskmanager.resource-id", place.name));
        let own: Vec<(&str, &str)> = own.into_iter().chain(name).collect();
        let memory = owned(&["-Xmx320m", "-XX:MaxDirectMemorySize=192m", "-XX:MaxMetaspaceSize=256m"]);
        let options = [self.archives.options(Role::TaskManager, &place.directory), memory].concat();
        self.start(place, configuration, &own, options, TASK_MANAGER, &[])
    }

    fn start(
        &self,
        place: &Place<'_>,
        configuration: &Configuration,
        own: &[(&str, &str)],
        options: Vec<String>,
        class: &str,
        more: &[String],
    ) -> Process {
        let directory = &place.directory;
        let temporary = directory.join("tmp");
        std::fs::create_dir_all(&temporary).expect("failed to make a directory");
        let mut configuration = configuration.clone();
        configuration.insert("io.tmp.dirs".to_owned(), temporary.display().to_string());
        configuration.extend(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let yaml = serde_yaml::to_string(&configuration).expect("a configuration in YAML");
        std::fs::write(directory.join("config.yaml"), yaml).expect("failed to write Flink's configuration");

        let mut arguments = self.java_options.clone();
        arguments.extend(options);
        arguments.extend(pods::java_options(place.address, directory));
        arguments.extend([
            // Several JVMs share two cores here: a JVM that starts fast is worth more than one that runs fast.
            "-XX:+UseSerialGC".to_owned(),
            "-XX:TieredStopAtLevel=1".to_owned(),
            format!("-Djava.io.tmpdir={}", temporary.display()),
            format!("-Dlog.file={}", directory.join("flink.log").display()),
            format!("-Dlog4j.configurationFile=file:{}", self.home.join("conf/log4j.properties").display()),
            "-classpath".to_owned(),
            self.home.join("lib/*").display().to_string(),
            class.to_owned(),
            "--configDir".to_owned(),
            directory.display().to_string(),
        ]);
        arguments.extend(more.iter().cloned());
        let program = Program {
            path: java(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: place.environment.clone(),
            log: directory.join("console.log"),
        };
        Process::start(pods::inside(place.address, program))
    }
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|&option| option.to_owned()).collect()
}

/// The environment by which Flink's Kubernetes client finds its API server, and nothing else of this machine.
pub fn kubernetes_environment(
    master: &str,
    certificate: Option<&Path>,
    token: &str,
    namespace: &str,
) -> Vec<(String, String)> {
    let mut environment = vec![
        ("KUBERNETES_MASTER", master.to_owned()),
        ("KUBERNETES_AUTH_TOKEN", token.to_owned()),
        ("KUBERNETES_NAMESPACE", namespace.to_owned()),
        ("KUBERNETES_AUTH_TRYKUBECONFIG", "false".to_owned()),
        ("KUBERNETES_AUTH_TRYSERVICEACCOUNT", "false".to_owned()),
    ];
    environment.extend(certificate.map(|path| ("KUBERNETES_CERTS_CA_FILE", path.display().to_string())));
    environment.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The jar of the example jobs, compiled against a version of Flink.
pub fn jobs_jar(version: &str) -> PathBuf {
    script("jobs/build", &[version]).into()
}

pub fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"))
}
