//! Certificates of an authority of a test, in directories as the kubelet makes them of Secrets, and what a cluster with
//! Flink's own TLS has more than others.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use flinkha::api::names::REST_PORT;
use flinkha::flink::tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::flink::Configuration;
use super::host::Directory;
use super::rest::Rest;

/// A name in the certificate.
const HOST: &str = "demo-rest";

/// Which of Flink's traffic is encrypted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encrypted {
    pub internal: bool,
    pub rest: bool,
    pub client_authentication: bool,
    /// By keys of spec.flinkConfiguration only: the gateway has no certificate.
    pub by_hand: bool,
}

pub struct Tls {
    directory: Directory,
    encrypted: Encrypted,
}

pub fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).expect("no name");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes a certificate of this authority into a directory.
pub fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    directory: &Path,
    change: impl FnOnce(&mut CertificateParams),
) {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new([HOST.to_owned(), "localhost".to_owned()]).expect("names");
    change(&mut parameters);
    let certificate = parameters.signed_by(&key, authority).expect("a certificate");
    let files = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.pem())];
    for (name, content) in files {
        std::fs::write(directory.join(name), content).expect("failed to write a certificate");
    }
}

/// Runs `flinkha prepare-tls` as the init container does.
pub fn prepare(flags: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flinkha"));
    command.arg("prepare-tls").args(flags).env("RUST_LOG", "off").env_remove("RUST_BACKTRACE");
    command.output().expect("failed to run prepare-tls")
}

impl Tls {
    pub fn new(encrypted: Encrypted) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = Self { directory: Directory::new("tls"), encrypted };
        own.renew();
        own
    }

    /// Issues all certificates anew, under an authority that is new too.
    pub fn renew(&self) {
        let authority = authority();
        for part in ["internal", "rest"] {
            issue(&authority, &self.secret(part), |_| ());
        }
    }

    /// Directory with a Secret.
    pub fn secret(&self, part: &str) -> PathBuf {
        self.directory.sub(part)
    }

    fn stores(pod: &Path) -> PathBuf {
        pod.join("stores")
    }

    /// Flags of a pod's containers.
    fn flags(&self, pod: &Path) -> Vec<String> {
        let mut flags = vec!["--tls-stores".to_owned(), Self::stores(pod).display().to_string()];
        for (part, is_used) in [("internal", self.encrypted.internal), ("rest", self.encrypted.rest)] {
            if is_used {
                flags.extend([format!("--tls-{part}"), self.secret(part).display().to_string()]);
            }
        }
        if self.encrypted.client_authentication {
            flags.push("--tls-rest-client-authentication".to_owned());
        }
        flags
    }

    pub fn gateway_flags(&self, pod: &Path) -> Vec<String> {
        if self.encrypted.by_hand { Vec::new() } else { self.flags(pod) }
    }

    /// Makes the key stores of a pod; returns Flink's settings for them.
    pub fn prepare(&self, pod: &Path) -> Configuration {
        let output = prepare(&self.flags(pod));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.settings(pod)
    }

    /// Flink's settings, as the operator writes them.
    pub fn settings(&self, pod: &Path) -> Configuration {
        let mut settings = Configuration::from([(tls::ALGORITHMS.to_owned(), tls::FOR_ALL_KEYS.to_owned())]);
        let parts = [("internal", tls::INTERNAL, self.encrypted.internal), ("rest", tls::REST, self.encrypted.rest)];
        for (part, keys, _) in parts.into_iter().filter(|(.., is_used)| *is_used) {
            settings.extend(tls::stores(keys, &Self::stores(pod).join(part).display().to_string()));
        }
        if self.encrypted.rest {
            settings.extend([tls::client_authentication(self.encrypted.client_authentication)]);
        }
        settings
    }

    /// A client of the JobManager in this pod. It checks the server's name and its authority, and presents the
    /// certificate of the pod if it has to.
    pub fn rest(&self, address: Ipv4Addr, pod: &Path, timeout: Duration) -> Rest {
        if !self.encrypted.rest {
            return Rest::with_timeout(address, timeout);
        }
        let stores = Self::stores(pod).join("rest");
        let read = |name: &str| std::fs::read(stores.join(name)).unwrap_or_default();
        let mut client = reqwest::Client::builder().no_proxy().timeout(timeout);
        client = client.resolve(HOST, SocketAddr::from((address, REST_PORT)));
        if let Ok(authorities) = reqwest::Certificate::from_pem_bundle(&read("ca.crt")) {
            client = client.tls_certs_only(authorities);
        }
        if self.encrypted.client_authentication {
            let identity = reqwest::Identity::from_pem(&[read("tls.crt"), read("tls.key")].concat());
            client = client.identity(identity.expect("a certificate with its key"));
        }
        Rest::of(format!("https://{HOST}:{REST_PORT}"), client.build().expect("an HTTP client"))
    }
}
