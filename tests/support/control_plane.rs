//! A control plane: one etcd and one or more kube-apiservers, with RBAC, service account tokens and an audit log each.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::audit::Audit;
use super::eventually;
use super::host::Directory;
use super::host::address;
use super::pods;
use super::process::Process;
use super::process::Program;
use super::script;
use super::seconds;

const ADMIN_TOKEN: &str = "admin";

pub struct ControlPlane {
    pub etcd: Process,
    pub servers: Vec<ApiServer>,
    etcd_address: Ipv4Addr,
    pub(super) directory: Directory,
    /// The keys of etcd that the first server has made by itself.
    own_keys: BTreeSet<String>,
}

pub struct ApiServer {
    pub process: Process,
    address: Ipv4Addr,
    directory: PathBuf,
    /// Length of the audit log when the present test began, in bytes.
    audited: u64,
}

impl ControlPlane {
    /// Starts etcd and one kube-apiserver, and waits until it is ready (3 to 5 seconds).
    pub async fn start() -> Self {
        Self::start_with(include_str!("audit-policy.yaml")).await
    }

    /// The same with this policy of the audit log.
    pub async fn start_with(audit_policy: &str) -> Self {
        let directory = Directory::new("control-plane");
        let etcd_address = address();
        directory.write("tokens.csv", format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"));
        directory.write("audit-policy.yaml", audit_policy);
        write_service_account_key(&directory.path().join("service-account.key"));
        let etcd = start_etcd(etcd_address, directory.path());
        let mut plane = Self { etcd, servers: Vec::new(), etcd_address, directory, own_keys: BTreeSet::new() };
        plane.add_server().await;
        plane.own_keys = plane.keys().await;
        plane
    }

    /// Makes a plane that was used as good as new: what is in etcd beyond the server's own objects is removed there,
    /// which the server learns as it learns all changes, and audit logs begin anew.
    pub async fn forget(&mut self) {
        // What a killed process has asked for may still be stored for a moment.
        let mut empty = 0;
        while empty < 2 {
            let keys = self.keys().await;
            let strange: Vec<&String> = keys.difference(&self.own_keys).filter(|key| !is_of_the_server(key)).collect();
            empty = if strange.is_empty() { empty + 1 } else { 0 };
            for keys in strange.chunks(100) {
                let remove = keys.iter().map(|key| json!({"requestDeleteRange": {"key": BASE64.encode(key)}}));
                self.call_etcd("kv/txn", json!({ "success": remove.collect::<Vec<Value>>() })).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for server in &mut self.servers {
            server.wait_until_forgotten().await;
            server.audited = std::fs::metadata(server.audit_log()).map_or(0, |log| log.len());
        }
    }

    async fn keys(&self) -> BTreeSet<String> {
        let (begin, end) = (BASE64.encode("/registry/"), BASE64.encode("/registry0"));
        let answer = self.call_etcd("kv/range", json!({"key": begin, "range_end": end, "keys_only": true})).await;
        let keys = answer["kvs"].as_array().cloned().unwrap_or_default();
        let decode = |key: &str| BASE64.decode(key).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        keys.iter().map(|one| one["key"].as_str().and_then(decode).expect("a key of etcd's")).collect()
    }

    async fn call_etcd(&self, path: &str, body: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().timeout(seconds(5)).build().expect("an HTTP client");
        let url = format!("http://{}:2379/v3/{path}", self.etcd_address);
        let answer = client.post(url).body(body.to_string()).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).expect("etcd answers");
        serde_json::from_str(&answer.text().await.expect("etcd's answer")).expect("etcd's answer in JSON")
    }

    /// One more kube-apiserver on the same etcd; returns its index in `servers`.
    pub async fn add_server(&mut self) -> usize {
        let index = self.servers.len();
        let server = ApiServer::start(self.etcd_address, &self.directory, index);
        server.wait_until_ready().await;
        self.servers.push(server);
        index
    }

    /// etcd out of space, as its own alarm has it: reads are answered, writes are not.
    pub async fn refuse_writes(&self) {
        self.alarm("ACTIVATE").await;
    }

    /// etcd has space again.
    pub async fn take_writes(&self) {
        self.alarm("DEACTIVATE").await;
    }

    async fn alarm(&self, action: &str) {
        let call = async |path: &str, body: Value| self.call_etcd(&format!("maintenance/{path}"), body).await;
        let member = call("status", json!({})).await["header"]["member_id"].clone();
        call("alarm", json!({"action": action, "memberID": member, "alarm": "NOSPACE"})).await;
    }

    /// A client with all rights, at one of the kube-apiservers.
    pub async fn admin(&self, server: usize) -> kube::Client {
        self.servers[server].client(ADMIN_TOKEN).await
    }
}

impl ApiServer {
    fn start(etcd: Ipv4Addr, shared: &Directory, index: usize) -> Self {
        let address = address();
        pods::reach(address);
        let directory = shared.sub(&format!("kube-apiserver-{index}"));
        let file = |name: &str| shared.path().join(name).display().to_string();
        let own = |name: &str| directory.join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers=http://{etcd}:2379"),
            format!("--bind-address={}", pods::address(address)),
            "--secure-port=6443".to_owned(),
            format!("--cert-dir={}", own("certificates")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-account.key")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            format!("--service-cluster-ip-range={}", service_ranges().join(",")),
            // No pod reaches this server by the Service `kubernetes`, and loopback is no valid endpoint.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", own("audit.log")),
            // One file, however long the test (in MB).
            "--audit-log-maxsize=10000".to_owned(),
            // A server with a dead etcd would otherwise wait for it for a minute before it ends.
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        let process = Process::start(Program {
            path: assets().join("kube-apiserver"),
            arguments: arguments.into_iter().map(Into::into).collect(),
            log: directory.join("log"),
            ..Program::default()
        });
        Self { process, address, directory, audited: 0 }
    }

    fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// Waits until the server knows that it has nothing but its own objects any more: what it answers from its caches
    /// and what it decides by them is new then.
    async fn wait_until_forgotten(&self) {
        let client = self.client(ADMIN_TOKEN).await;
        let cached = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default() };
        eventually("a server that has forgotten", seconds(30), async || {
            let namespaces: Api<Namespace> = Api::all(client.clone());
            let accounts: Api<ServiceAccount> = Api::all(client.clone());
            let bindings: Api<RoleBinding> = Api::all(client.clone());
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            let own = ["default", "kube-system", "kube-public", "kube-node-lease"];
            let namespaces = namespaces.list(&cached).await.ok()?.items;
            let known = namespaces.iter().all(|one| own.contains(&one.name_any().as_str()))
                && accounts.list(&cached).await.ok()?.items.is_empty()
                && bindings.list(&cached).await.ok()?.iter().all(|one| one.name_any().starts_with("system"))
                && definitions.list(&cached).await.ok()?.items.is_empty();
            known.then_some(())
        })
        .await;
    }

    pub async fn wait_until_ready(&self) {
        let begin = std::time::Instant::now();
        eventually(&format!("kube-apiserver, see {}/log", self.directory.display()), seconds(60), async || {
            let kubeconfig = self.certificate().exists().then(|| self.kubeconfig(ADMIN_TOKEN))?;
            let client = client(kubeconfig).await;
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            client.request_text(request).await.ok()
        })
        .await;
        super::say(format!("kube-apiserver at {} ready in {:.1} s", self.url(), begin.elapsed().as_secs_f32()));
    }

    pub fn url(&self) -> String {
        format!("https://{}", SocketAddr::new(pods::address(self.address), 6443))
    }

    /// The certificate that the server made for itself.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    pub fn audit(&self) -> Audit {
        Audit::since(self.audit_log(), self.audited)
    }

    pub fn kubeconfig(&self, token: &str) -> Kubeconfig {
        let name = || "test".to_owned();
        let cluster = Cluster {
            server: Some(self.url()),
            certificate_authority: Some(self.certificate().display().to_string()),
            ..Cluster::default()
        };
        let user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        let context = Context { cluster: name(), user: Some(name()), ..Context::default() };
        Kubeconfig {
            clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), ..NamedAuthInfo::default() }],
            contexts: vec![NamedContext { name: name(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(name()),
            ..Kubeconfig::default()
        }
    }

    pub async fn client(&self, token: &str) -> kube::Client {
        client(self.kubeconfig(token)).await
    }

    pub async fn config(&self, token: &str) -> kube::Config {
        config(self.kubeconfig(token)).await
    }
}

/// Of Services' addresses. The first one has the family of the pods; in it is the address of a Service about which
/// nothing is said.
fn service_ranges() -> Vec<&'static str> {
    let mut ranges = vec!["10.0.0.0/16", "fd00:10:96::/112"];
    if pods::are_of_ipv6() {
        ranges.reverse();
    }
    ranges
}

/// What the server makes by itself some time after it is ready.
fn is_of_the_server(key: &str) -> bool {
    const OWN: [&str; 8] = [
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "flowschemas",
        "prioritylevelconfigurations",
        "ranges",
        "servicecidrs",
        "ipaddresses",
    ];
    key.split('/').any(|part| OWN.contains(&part))
        || key.ends_with("/default/kubernetes")
        || key.ends_with("namespaces/default")
}

async fn client(kubeconfig: Kubeconfig) -> kube::Client {
    kube::Client::try_from(config(kubeconfig).await).expect("a client for our own kubeconfig")
}

async fn config(kubeconfig: Kubeconfig) -> kube::Config {
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("our own kubeconfig");
    config.connect_timeout = Some(Duration::from_secs(2));
    config.proxy_url = None;
    config
}

fn start_etcd(address: Ipv4Addr, directory: &Path) -> Process {
    let client = format!("http://{address}:2379");
    let arguments = [
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls=http://{address}:2380"),
        // The data ends with the test; a disk that is busy with builds is not what is tested.
        "--unsafe-no-fsync".to_owned(),
    ];
    Process::start(Program {
        path: assets().join("etcd"),
        arguments: arguments.into_iter().map(Into::into).collect(),
        log: directory.join("etcd.log"),
        ..Program::default()
    })
}

/// The key by which the servers sign and check the tokens of ServiceAccounts.
fn write_service_account_key(path: &Path) {
    let made = Command::new("openssl")
        .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
        .arg(path)
        .status();
    let made =
        made.unwrap_or_else(|error| panic!("openssl is needed to make a key for service account tokens: {error}"));
    assert!(made.success(), "openssl could not make a key for service account tokens");
}

/// The version of the kube-apiservers, such as `v1.34.4`.
pub fn kubernetes_version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let told = Command::new(assets().join("kube-apiserver")).arg("--version").output();
        let told = String::from_utf8(told.expect("failed to run kube-apiserver").stdout).expect("its version");
        told.trim().strip_prefix("Kubernetes ").unwrap_or_else(|| panic!("no version: {told:?}")).to_owned()
    })
}

/// Do the kube-apiservers have ValidatingAdmissionPolicies? Before 1.30 they are off by default.
pub fn has_admission_policies() -> bool {
    let minor = kubernetes_version().split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 30)
}

/// For a test of what only the admission policies do: says so where there are none, and tells whether to go on.
pub fn needs_admission_policies(what: &str) -> bool {
    needs_policies("n/a", what)
}

/// The same for a part of a test.
pub fn needs_admission_warnings(what: &str) -> bool {
    needs_policies("n/a in part", what)
}

fn needs_policies(not_there: &str, what: &str) -> bool {
    if !has_admission_policies() {
        super::say(format!("{not_there} before Kubernetes 1.30: {what}"));
    }
    has_admission_policies()
}

/// The directory of kube-apiserver, etcd and kubectl; built when the machine has none, which can take many minutes.
fn assets() -> &'static Path {
    static ASSETS: OnceLock<PathBuf> = OnceLock::new();
    ASSETS.get_or_init(|| script("rig/assets", &[]).into())
}
