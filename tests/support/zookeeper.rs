//! A real ZooKeeper quorum: three servers as processes, each on an address of its own, and a client that looks at what
//! is there.

use std::net::SocketAddr;
use std::path::Path;

use flinkha::api::zookeeper::Scheme;
use flinkha::flink::znodes::{Paths, address as address_in};
use flinkha::gateway::quorum::{connect, tunnel_on_loopback};
use flinkha::world::quorum::auth::QuorumIdentity;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};
use zookeeper_client::Client;

use super::application::sound;
use super::cluster::NAME;
use super::cluster::NAMESPACE;
use super::eventually;
use super::flink::java;
use super::host::Directory;
use super::host::address;
use super::members::Member;
use super::network;
use super::process::Process;
use super::process::Program;
use super::say;
use super::script;
use super::seconds;

/// Flink's own default.
pub const ROOT: &str = "/flink";

pub struct Quorum {
    pub servers: Vec<Process>,
    /// What gateways are told.
    pub password: &'static str,
    pub(super) members: Vec<Member>,
    directory: Directory,
    client: Mutex<Option<Client>>,
    way: OnceCell<SocketAddr>,
    security: Security,
}

/// What the servers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Nothing,
    /// TLS at the port that is told to others; znodes are for their creator, who is known by ZooKeeper's scheme
    /// `digest`.
    Digest,
    /// The same by SASL, and servers take requests of nobody else, at any port.
    Sasl,
}

/// Who we are to a secure quorum.
pub const USER: &str = "flink";
pub const PASSWORD: &str = "a password of this test";

impl Quorum {
    /// Starts three servers, and returns when they have a leader.
    pub async fn start() -> Self {
        Self::start_with(Security::Nothing).await
    }

    pub async fn start_with(security: Security) -> Self {
        let jars = script("rig/zookeeper-dist", &[]);
        let mut quorum = Self { security, ..Self::nobody() };
        let (members, directory) = (&quorum.members, &quorum.directory);
        if quorum.is_secure() {
            make_certificates(directory, members);
        }
        quorum.servers =
            (0..3).map(|index| start_server(Path::new(&jars), members, index, directory, security)).collect();
        let begin = std::time::Instant::now();
        quorum.wait_until_ready().await;
        say(format!("ZooKeeper: 3 servers up in {:.1} s", begin.elapsed().as_secs_f32()));
        quorum
    }

    /// The address of a quorum where there is none.
    pub fn nobody() -> Self {
        let members = (1..=3).map(Member::new).collect();
        let (client, way, security) = (Mutex::default(), OnceCell::new(), Security::Nothing);
        Self {
            servers: Vec::new(),
            password: PASSWORD,
            members,
            directory: Directory::new("zookeeper"),
            client,
            way,
            security,
        }
    }

    pub async fn wait_until_ready(&self) {
        eventually("a ZooKeeper server that gives sessions", seconds(60), async || self.connect().await.map(drop))
            .await;
    }

    pub fn is_secure(&self) -> bool {
        self.security != Security::Nothing
    }

    /// As in Flink's configuration.
    pub fn servers(&self) -> String {
        self.at(if self.is_secure() { 2281 } else { 2181 })
    }

    pub fn at(&self, port: u16) -> String {
        self.members.iter().map(|member| format!("{}:{port}", member.address)).collect::<Vec<_>>().join(",")
    }

    /// Of a gateway.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--zookeeper-quorum".to_owned(), self.servers()];
        if self.is_secure() {
            let tls = self.directory.path().display().to_string();
            flags.extend(["--zookeeper-tls".to_owned(), tls, "--zookeeper-creator-only".to_owned()]);
            flags.extend(["--zookeeper-credentials".to_owned(), self.credentials()]);
        }
        if self.security == Security::Sasl {
            flags.extend(["--zookeeper-scheme".to_owned(), "sasl".to_owned()]);
        }
        flags
    }

    /// A Secret with name and password as the kubelet mounts it.
    fn credentials(&self) -> String {
        let directory = self.directory.sub(&format!("user {}", self.password));
        for (name, content) in [("username", USER), ("password", self.password)] {
            std::fs::write(directory.join(name), content).expect("failed to write the credentials");
        }
        directory.display().to_string()
    }

    /// The sidecar of a TaskManager, and where it is found.
    pub fn pass_through(&self, directory: &Path) -> (String, Process) {
        let way = format!("{}:6180", address());
        let own = ["pass-through".to_owned(), "--jvm-address".to_owned(), way.clone()];
        let process = Process::start(Program {
            path: Path::new(env!("CARGO_BIN_EXE_flinkha")).into(),
            arguments: own.into_iter().chain(self.flags()).map(Into::into).collect(),
            environment: Vec::new(),
            log: directory.join("pass-through.log"),
        });
        (way, process)
    }

    /// A client of its own session, which ends when it is dropped.
    pub async fn connect(&self) -> Option<Client> {
        let connector = Client::connector().with_session_timeout(seconds(10)).with_fail_eagerly();
        let servers = self.at(2181);
        let connected = async {
            match self.security {
                Security::Nothing => connector.connect(&servers).await.ok(),
                Security::Digest => {
                    connector.with_auth("digest", format!("{USER}:{PASSWORD}").as_bytes()).connect(&servers).await.ok()
                }
                Security::Sasl => {
                    let identity = QuorumIdentity {
                        scheme: Scheme::Sasl,
                        username: USER.to_owned(),
                        password: PASSWORD.to_owned(),
                    };
                    let quorum = flinkha::world::quorum::Quorum::new(&servers).with_identity(identity);
                    let way =
                        self.way.get_or_try_init(|| tunnel_on_loopback(&quorum)).await.expect("a way to the quorum");
                    connect(*way, &quorum).await.ok()
                }
            }
        };
        tokio::time::timeout(seconds(5), connected).await.ok()?
    }

    /// One client for all looks of a test, made anew when its session is over.
    pub async fn client(&self) -> Option<Client> {
        let mut kept = self.client.lock().await;
        if kept.as_ref().is_none_or(|client| client.state().is_terminated()) {
            *kept = self.connect().await;
        }
        kept.clone()
    }

    pub fn paths() -> Paths {
        Paths::new(ROOT, &flinkha::api::names::high_availability_cluster_id(NAMESPACE, NAME))
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// What the operator makes otherwise with ZooKeeper: no Lease, and no rights on anything but the ledger and the
/// EndpointSlice.
pub async fn without_a_lease(client: &kube::Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    leases.delete(NAME, &DeleteParams::default()).await.expect("one Lease less");
    let resource = json!({ "provider": "ZooKeeper", "storageDir": "file:///ha", "zookeeper": { "quorum": "zk:2181" } });
    let spec = json!({ "image": "flink", "highAvailability": resource });
    let spec = serde_json::from_value(spec).expect("a spec");
    set_rights(client, &sound(spec)).await;
}

/// What gateways of this cluster may do.
pub async fn set_rights(client: &kube::Client, cluster: &flinkha::cluster::Cluster) {
    let rules = flinkha::cluster::build::zookeeper::rules(cluster).into_iter().map(|one| one.rule);
    let rules = json!({ "rules": rules.collect::<Vec<_>>() });
    let roles: Api<Role> = Api::namespaced(client.clone(), NAMESPACE);
    roles.patch("demo-gateway", &PatchParams::default(), &Patch::Merge(rules)).await.expect("a Role");
}

fn start_server(jars: &Path, members: &[Member], index: usize, shared: &Directory, security: Security) -> Process {
    let directory = shared.sub(&format!("server-{}", index + 1));
    let data = directory.join("data");
    std::fs::create_dir_all(&data).expect("failed to make a directory");
    std::fs::write(data.join("myid"), members[index].id.to_string()).expect("failed to write the id of a server");
    let mut configuration = format!(
        "dataDir={}\nclientPort=2181\nclientPortAddress={}\ntickTime=2000\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\n4lw.commands.whitelist=srvr,cons\n",
        data.display(),
        members[index].address
    );
    if security != Security::Nothing {
        let file = |name: &str| shared.path().join(name).display().to_string();
        configuration.push_str(&format!(
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nsecureClientPort=2281\nsecureClientPortAddress={}\n\
             ssl.keyStore.location={}\nssl.trustStore.location={}\nssl.clientAuth=none\n",
            members[index].address,
            file("server.pem"),
            file("ca.pem")
        ));
    }
    if security == Security::Sasl {
        configuration.push_str(
            "authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
             sessionRequireClientSASLAuth=true\nenforce.auth.enabled=true\nenforce.auth.schemes=sasl\n",
        );
    }
    let users = format!(
        "Server {{ org.apache.zookeeper.server.auth.DigestLoginModule required user_{USER}=\"{PASSWORD}\"; }};\n"
    );
    let jaas = shared.write("jaas.conf", users);
    for member in members {
        configuration.push_str(&format!("server.{}={}:2888:3888\n", member.id, member.peer));
    }
    std::fs::write(directory.join("zoo.cfg"), configuration).expect("failed to write the configuration of a server");
    let sasl = (security == Security::Sasl).then(|| format!("-Djava.security.auth.login.config={}", jaas.display()));
    let arguments = [
        "-Xmx96m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        // The data ends with the test; a disk that is busy with builds is not what is tested.
        "-Dzookeeper.forceSync=no".to_owned(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned(),
        "-classpath".to_owned(),
        jars.join("*").display().to_string(),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned(),
        directory.join("zoo.cfg").display().to_string(),
    ];
    let program = Program {
        path: java(),
        arguments: sasl.into_iter().chain(arguments).map(Into::into).collect(),
        log: directory.join("log"),
        ..Program::default()
    };
    Process::start(members[index].place.map_or(program.clone(), |place| network::at(place, program)))
}

/// Session of the leading dispatcher.
pub async fn publisher(client: &Client) -> Option<i64> {
    client.check_stat(&Quorum::paths().dispatcher()).await.ok()?.map(|stat| stat.ephemeral_owner)
}

/// The address of the leading dispatcher, as Flink has published it.
pub async fn dispatcher(client: &Client) -> Option<String> {
    let (bytes, _) = client.get_data(&Quorum::paths().dispatcher()).await.ok()?;
    address_in(&bytes).map(str::to_owned)
}

/// The number of the next checkpoint (Curator's `SharedCount`: four bytes).
pub async fn checkpoint_counter(client: &Client, job: &str) -> Option<u64> {
    let path = format!("{}/checkpoint_id_counter", Quorum::paths().job(job.parse().ok()?));
    let (bytes, _) = client.get_data(&path).await.ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?).into())
}

/// Paths of all znodes that belong to jobs: those that stay while a cluster runs are left out.
pub async fn of_jobs(client: &Client) -> Vec<String> {
    let root = Quorum::paths().cluster;
    let mut found = tree(client, &root).await;
    found.retain(|path| {
        let below = path.strip_prefix(&root).unwrap_or_default().trim_start_matches('/');
        let (kind, rest) = below.split_once('/').unwrap_or((below, ""));
        match kind {
            "flinkha" => false,
            "leader" => rest.starts_with("job-"),
            _ => !rest.is_empty(),
        }
    });
    found
}

/// A znode and all below it; none if it is not there.
pub async fn tree(client: &Client, root: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        if let Ok(children) = client.list_children(&path).await {
            open.extend(children.iter().map(|child| format!("{path}/{child}")));
            found.push(path);
        }
    }
    found
}

/// An authority, and one certificate for all servers. `ca.crt` is what the Secret of a user holds.
fn make_certificates(directory: &Directory, members: &[Member]) {
    let names = members.iter().map(|member| format!("IP:{}", member.address)).collect::<Vec<_>>().join(",");
    let script = format!(
        "set -e; cd '{}'\n\
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority\n\
         openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server\n\
         printf 'subjectAltName={names}\\n' > names\n\
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt\n\
         cat server.key server.crt > server.pem; cp ca.crt ca.pem",
        directory.path().display()
    );
    let made = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(made.status.success(), "openssl could not make certificates: {}", String::from_utf8_lossy(&made.stderr));
}
