//! Flink's own TLS with real JVMs: they read the key stores that are made of certificates in PEM, a gateway calls its
//! JVM by TLS, and what is wrong with a certificate is told.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use flinkha::api::names::{self, TLS_ANNOTATION};
use flinkha::flink::tls::PASSWORD;
use flinkha::ledger::application::SavepointRequest;
use flinkha::ledger::jobs;
use flinkha::world::flink_rest::Rest;
use flinkha::world::quorum::Quorum;
use rcgen::date_time_ymd;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::cluster::{Cluster, NAME, Provider};
use crate::support::failover::fail_over;
use crate::support::tls::{Encrypted, Tls, authority, issue, prepare};
use crate::support::{eventually, say, seconds};

const SEQUENCE: [&str; 6] = ["--output", "OUTPUT", "--rate", "100", "--checkpoint-interval-millis", "500"];

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("failed to run {program}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

fn flags(directory: &Path) -> Vec<String> {
    let path = |name: &str| directory.join(name).display().to_string();
    vec!["--tls-internal".to_owned(), path("secret"), "--tls-stores".to_owned(), path("stores")]
}

/// Of a Secret that cannot be used.
fn refused(directory: &Path) -> String {
    let output = prepare(&flags(directory));
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Keys in every format that cert-manager and openssl write: PKCS #1, SEC 1 and PKCS #8.
#[test]
fn java_reads_the_stores_with_keys_of_every_format() {
    let kinds: [&[&str]; 3] = [
        &["genrsa", "-traditional", "-out", "tls.key", "2048"],
        &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "tls.key"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "tls.key"],
    ];
    for kind in kinds {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::create_dir(&secret).unwrap();
        run("openssl", kind, &secret);
        run("openssl", &["req", "-x509", "-key", "tls.key", "-out", "tls.crt", "-subj", "/CN=flink"], &secret);
        let made = prepare(&flags(directory.path()));
        assert!(made.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&made.stderr));
        let stores = directory.path().join("stores/internal");
        // A request is signed with the private key.
        let with = ["-keystore", "keystore.jks", "-storepass", PASSWORD];
        let request = run("keytool", &[&["-certreq", "-alias", "flink"], &with[..]].concat(), &stores);
        assert!(request.contains("BEGIN NEW CERTIFICATE REQUEST"), "{kind:?}: {request}");
        let with = ["-list", "-keystore", "truststore.jks", "-storepass", PASSWORD];
        let listed = run("keytool", &with, &stores);
        assert!(listed.contains("1 entry") && listed.contains("trustedCertEntry"), "{kind:?}: {listed}");
    }
}

/// As for the time in which the authority changes.
#[test]
fn the_trust_store_has_all_authorities_of_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let (secret, own) = (directory.path().join("secret"), authority());
    std::fs::create_dir(&secret).unwrap();
    issue(&own, &secret, |_| ());
    std::fs::write(secret.join("ca.crt"), [authority().pem(), own.pem()].concat()).unwrap();
    let made = prepare(&flags(directory.path()));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let with = ["-list", "-keystore", "truststore.jks", "-storepass", PASSWORD];
    let listed = run("keytool", &with, &directory.path().join("stores/internal"));
    assert!(listed.contains("2 entries"), "{listed}");
}

#[test]
fn a_certificate_that_nobody_would_accept_is_refused_with_the_field_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    assert_eq!(refused(directory.path()), "Error: the Secret of spec.tls.internal: tls.crt is missing");
    std::fs::create_dir(&secret).unwrap();
    issue(&authority(), &secret, |parameters| parameters.not_after = date_time_ymd(2020, 1, 2));
    assert_eq!(
        refused(directory.path()),
        "Error: the Secret of spec.tls.internal: the certificate expired at 2020-01-02T00:00:00Z; issue the certificate again"
    );
    issue(&authority(), &secret, |_| ());
    std::fs::write(secret.join("tls.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refused(directory.path()).contains("tls.key is not the key of the certificate in tls.crt"));
}

/// A server with the certificate in a directory, which answers every request with nothing.
async fn serve(directory: &Path) -> u16 {
    let chain: Vec<_> = CertificateDer::pem_file_iter(directory.join("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_quorum_trusts_the_authority_that_is_in_the_secret_now() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    issue(&authority(), directory.path(), |_| ());
    let before = serve(directory.path()).await;
    let quorum = |port: u16| Quorum::new(&format!("localhost:{port}")).with_tls(directory.path()).unwrap();
    let first = quorum(before);
    assert!(first.connect().await.is_ok());
    issue(&authority(), directory.path(), |_| ());
    let error = first.connect().await.err().expect("a server that has not been renewed").to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(quorum(serve(directory.path()).await).connect().await.is_ok());
}

/// A server that requires a certificate of this authority: the certificates that it has seen.
async fn serve_known(directory: &Path) -> (u16, Arc<Mutex<Vec<CertificateDer<'static>>>>) {
    let chain: Vec<_> = CertificateDer::pem_file_iter(directory.join("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.crt")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), Arc::<Mutex<Vec<_>>>::default());
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
            all.lock().unwrap().extend(presented.first().map(|own| own.clone().into_owned()));
        }
    });
    (port, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_quorum_presents_the_certificate_that_is_in_the_secret_now() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (authority, servers, own) = (authority(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    issue(&authority, servers.path(), |_| ());
    let (port, seen) = serve_known(servers.path()).await;
    issue(&authority, own.path(), |_| ());
    let quorum = Quorum::new(&format!("localhost:{port}")).with_tls(own.path()).unwrap();
    let mut presented = Vec::new();
    for _ in 0..2 {
        presented.push(CertificateDer::from_pem_file(own.path().join("tls.crt")).unwrap());
        let connection = quorum.connect().await.expect("a connection");
        let told = async || (seen.lock().unwrap().len() == presented.len()).then_some(());
        eventually("a certificate at the server", seconds(10), told).await;
        assert_eq!(*seen.lock().unwrap(), presented);
        drop(connection);
        issue(&authority, own.path(), |_| ());
    }
    // While the kubelet replaces the files, the former ones are used.
    std::fs::write(own.path().join("tls.crt"), "nonsense").unwrap();
    quorum.connect().await.expect("a connection with the former certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_calls_the_process_with_the_certificate_of_its_jvm_and_no_other() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Also one that has expired.
    issue(&authority(), own.path(), |parameters| parameters.not_after = date_time_ymd(2020, 1, 2));
    issue(&authority(), other.path(), |_| ());
    let jvm = format!("http://127.0.0.1:{}", serve(own.path()).await);
    let late = tempfile::tempdir().unwrap();
    let rest = Rest::new(&jvm).with_tls(Some(late.path().to_owned()));
    assert!(rest.get("/overview").await.is_err(), "the key stores are not there yet");
    for name in ["tls.crt", "tls.key"] {
        std::fs::copy(own.path().join(name), late.path().join(name)).unwrap();
    }
    rest.get("/overview").await.unwrap();
    assert_eq!(rest.trouble(), None);
    Rest::new(&jvm).with_tls(None).get("/overview").await.expect("any certificate is accepted");
    let stranger = Rest::new(&jvm).with_tls(Some(other.path().to_owned()));
    assert!(stranger.get("/overview").await.is_err());
    let why = stranger.trouble().expect("trouble");
    assert!(why.contains("the process on Flink's REST port has another certificate"), "{why}");
}

pub async fn prepared(encrypted: Encrypted) -> Cluster {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.tls = Some(Arc::new(Tls::new(encrypted)));
    cluster
}

/// What the leader says of Flink's TLS.
pub async fn told(cluster: &Cluster) -> Option<String> {
    let ledger = cluster.config_map(&names::ledger(NAME)).await?;
    ledger.metadata.annotations?.get(TLS_ANNOTATION).cloned()
}

/// The name of a job is known to a gateway by REST only.
async fn wait_for_name(cluster: &Cluster, job: &str) {
    let named = async || {
        let data = cluster.config_map(&names::ledger(NAME)).await?.data?;
        let jobs = jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("a ledger that can be read");
        jobs.into_iter().find(|one| one.id == job).filter(|one| !one.name.is_empty())
    };
    say(eventually("the job's name in the ledger", seconds(60), named).await.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cluster_with_internal_tls_and_rest_that_authenticates_its_clients_fails_over() {
    let encrypted = Encrypted { internal: true, rest: true, client_authentication: true, by_hand: false };
    let mut cluster = prepared(encrypted).await.up(2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    wait_for_name(&cluster, &job).await;
    let anonymous = reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap();
    let address = cluster.job_managers[0].address;
    let asked = anonymous.get(format!("https://{address}:{}/overview", names::REST_PORT)).send().await;
    assert!(asked.is_err(), "a client without a certificate is answered: {asked:?}");
    for _ in 0..2 {
        let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
        cluster.job_managers[1 - failover.leader].jvm.restart();
        cluster.wait_until_ready().await;
    }
    assert_eq!(told(&cluster).await, None);

    // A Secret that is broken is told of, and told no more when it is whole.
    let tls = cluster.tls.clone().expect("certificates");
    std::fs::write(tls.secret("rest").join("tls.crt"), "nonsense").unwrap();
    let why = eventually("a report", seconds(90), async || told(&cluster).await).await;
    say(&why);
    assert!(why.contains("the Secret of spec.tls.rest: tls.crt is not a certificate in PEM"), "{why}");
    tls.renew();
    eventually("no report", seconds(90), async || told(&cluster).await.is_none().then_some(())).await;

    // All are issued anew under another authority; pods that start now use them, and a gateway knows its own JVM.
    cluster.task_managers.clear();
    for _ in 0..2 {
        drop(cluster.job_managers.remove(0));
        cluster.add_job_manager().await;
    }
    cluster.add_task_manager().await;
    cluster.wait_until_ready().await;
    cluster.wait_for_checkpoints(&job, 2).await;
    wait_for_name(&cluster, &job).await;
    assert_eq!(told(&cluster).await, None);
    cluster.verify("any");
}

async fn application(encrypted: Encrypted) {
    let cluster = prepared(encrypted).await.up_as_application(2, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    let request = SavepointRequest {
        id: "upgrade-2".to_owned(),
        job: job.parse().expect("an id"),
        directory: format!("file://{}/savepoints/upgrade-2", cluster.path().display()),
        stop: true,
        retain: None,
    };
    cluster.ask_for_savepoint(&request).await;
    let answered = async || cluster.progress().await.savepoint.filter(|answer| !answer.at.is_empty());
    let answer = eventually("an answer", seconds(60), answered).await;
    say(format!("{encrypted:?}: {:?}", answer.path));
    let path = answer.path.expect("a savepoint");
    assert!(Path::new(path.trim_start_matches("file:")).join("_metadata").exists(), "{path}");
    eventually("a tombstone", seconds(60), async || cluster.tombstone(&job).await).await;
    assert_eq!(told(&cluster).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_watched_and_stopped_with_a_savepoint_by_tls() {
    application(Encrypted { internal: true, rest: true, ..Encrypted::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_watched_and_stopped_with_a_savepoint_by_tls_with_a_certificate() {
    application(Encrypted { rest: true, client_authentication: true, ..Encrypted::default() }).await;
}

/// By keys of spec.flinkConfiguration: the gateway knows no certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_flink_is_set_up_for_tls_by_hand_is_watched_and_stopped_too() {
    application(Encrypted { rest: true, by_hand: true, ..Encrypted::default() }).await;
}
