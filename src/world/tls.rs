//! Certificates in files, as Secrets of type `kubernetes.io/tls` have them, and TLS connections that use them.
//!
//! The kubelet replaces the files when a Secret changes. So a client that lives for long reads them again for each
//! connection ([`TlsDirectory`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// Names of the files, which are the keys of the Secret.
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
pub const AUTHORITY: &str = "ca.crt";

/// Contents of the files. A file that is absent or empty is `None`: cert-manager writes an empty `ca.crt` if it does
/// not know the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PemFiles {
    pub certificate: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
    pub authority: Option<Vec<u8>>,
}

impl PemFiles {
    /// # Errors
    /// When a file exists and cannot be read.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| match std::fs::read(directory.join(name)) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.trim_ascii().is_empty())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {name}")),
        };
        Ok(Self { certificate: read(CERTIFICATE)?, key: read(KEY)?, authority: read(AUTHORITY)? })
    }

    /// Returns the certificate with its intermediate ones, and its key.
    ///
    /// # Errors
    /// When one of the files is absent, or is not what it should be.
    pub fn identity(&self) -> anyhow::Result<TlsIdentity> {
        let chain = self.certificate.as_deref().context("tls.crt is missing")?;
        let chain = certificates(chain).context("tls.crt is not a certificate in PEM")?;
        let key = self.key.as_deref().context("tls.key is missing")?;
        let key = PrivateKeyDer::from_pem_slice(key).ok().context("tls.key is not a private key in PEM")?;
        Ok(TlsIdentity { chain, key })
    }

    /// Returns whom to trust: the authority, or without one the certificate itself.
    ///
    /// # Errors
    /// When neither is there, or it is not what it should be.
    pub fn trusted(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        match (&self.authority, &self.certificate) {
            (Some(authority), _) => certificates(authority).context("ca.crt is not a certificate in PEM"),
            (None, Some(own)) => Ok(certificates(own).context("tls.crt is not a certificate in PEM")?),
            (None, None) => anyhow::bail!("tls.crt is missing"),
        }
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// A certificate with its intermediate ones, and its private key.
pub struct TlsIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// # Errors
    /// When the key is not that of the certificate.
    pub fn check_key(&self) -> anyhow::Result<()> {
        let key = ring::sign::any_supported_type(&self.key).context("tls.key is of an unknown kind")?;
        let pair = CertifiedKey::new(self.chain.clone(), key);
        pair.keys_match().context("tls.key is not the key of the certificate in tls.crt")
    }
}

/// What a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    /// Also towards servers.
    Both,
}

/// Returns why others would reject a certificate at this time; `None` if they accept it, or if it is unknown whether
/// they do: Java is less strict than the library that is used here, for example about an authority that is its own
/// server.
pub fn rejection(files: &PemFiles, usage: Usage, now: Timestamp) -> Option<String> {
    let error = check(files, usage, now).err()?;
    let Some(known) = error.downcast_ref::<rustls::Error>() else { return Some(format!("{error:#}")) };
    let is_certain = matches!(
        known,
        rustls::Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYetContext { .. }
                | CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. }
        )
    );
    is_certain.then(|| told(known))
}

fn check(files: &PemFiles, usage: Usage, now: Timestamp) -> anyhow::Result<()> {
    let chain = certificates(files.certificate.as_deref().context("tls.crt is missing")?);
    let chain = chain.context("tls.crt is not a certificate in PEM")?;
    let (own, intermediates) = chain.split_first().context("tls.crt is empty")?;
    let mut roots = RootCertStore::empty();
    for root in files.trusted()? {
        roots.add(root).map_err(|error| anyhow::anyhow!("whom to trust cannot be read: {error}"))?;
    }
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(own)?,
        &roots,
        intermediates,
        now,
        algorithms,
    )?;
    if usage == Usage::Both {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        verifier.verify_client_cert(own, intermediates, now)?;
    }
    Ok(())
}

/// Says what is wrong with a certificate, or why a handshake failed.
pub fn told(error: &rustls::Error) -> String {
    use rustls::AlertDescription::{BadCertificate, CertificateExpired, CertificateUnknown, HandshakeFailure};
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let when = Timestamp::from_second(seconds).map(|when| when.to_string()).unwrap_or_default();
            format!("the certificate expired at {when}")
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }) => {
            "the certificate is not valid yet; look at the clocks".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "ca.crt has not signed the certificate in tls.crt".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "the certificate is not for both server and client authentication".to_owned(),
        rustls::Error::AlertReceived(HandshakeFailure) => {
            "the two sides have no algorithm in common; look at security.ssl.algorithms and security.ssl.protocol"
                .to_owned()
        }
        rustls::Error::AlertReceived(BadCertificate | CertificateExpired | CertificateUnknown) => {
            format!("Flink rejects the gateway's certificate ({error})")
        }
        other => other.to_string(),
    }
}

/// Finds the error of a handshake among the causes of a failed request.
pub fn handshake_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An `io::Error` passes over the error that it was made of when it tells its source.
    let made_of = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let made_of = made_of.and_then(|inner| handshake_error(inner));
    error.downcast_ref().or(made_of).or_else(|| error.source().and_then(handshake_error))
}

/// A directory whose certificates may change at any time.
pub struct TlsDirectory {
    directory: PathBuf,
    /// What was read last and could be used.
    last: Mutex<Option<(PemFiles, TlsConnector)>>,
}

impl TlsDirectory {
    /// `directory` holds `ca.crt`, and `tls.crt` and `tls.key` if servers require a certificate of their clients.
    ///
    /// # Errors
    /// When a file cannot be read, or when it is not PEM.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let directory = Self { directory: directory.to_owned(), last: Mutex::default() };
        directory.connector().map(|_| directory)
    }

    /// Returns a connector with the certificates of now. While the files are not usable, it has those that were used
    /// last.
    ///
    /// # Errors
    /// When the files are not usable and never were.
    pub fn connector(&self) -> anyhow::Result<TlsConnector> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = PemFiles::read(&self.directory);
        if let (Ok(now), Some((before, connector))) = (&now, &*last)
            && now == before
        {
            return Ok(connector.clone());
        }
        match (now.and_then(|files| Ok((connector(&files)?, files))), &*last) {
            (Ok((connector, files)), before) => {
                if before.is_some() {
                    tracing::info!(directory = %self.directory.display(), "certificates have changed");
                }
                *last = Some((files, connector.clone()));
                Ok(connector)
            }
            (Err(error), Some((_, connector))) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    directory = %self.directory.display(),
                    "new certificates cannot be used; the former ones still are"
                );
                Ok(connector.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn connector(files: &PemFiles) -> anyhow::Result<TlsConnector> {
    anyhow::ensure!(files.authority.is_some(), "ca.crt is missing");
    let mut roots = RootCertStore::empty();
    for root in files.trusted()? {
        roots.add(root).context("ca.crt is not a certificate")?;
    }
    let config = builder()?.with_root_certificates(roots);
    let config = if files.certificate.is_some() {
        let TlsIdentity { chain, key } = files.identity()?;
        config.with_client_auth_cert(chain, key).context("tls.key does not fit tls.crt")?
    } else {
        config.with_no_client_auth()
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?)
}

/// Returns the configuration of a client on loopback, whose server is the process that this pod has started.
///
/// `known`: the certificate of that process, and its key, which the client presents if it is asked for one. The client
/// accepts that very certificate, whatever names it has and even when it has expired: no authority could say more.
/// Without it, the client accepts any. It then knows no more of the server than a client without TLS, which is what the
/// pod's loopback has to be good for anyway.
///
/// # Errors
/// When the key does not fit.
pub fn loopback(known: Option<TlsIdentity>) -> anyhow::Result<ClientConfig> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let verifier =
        KnownServer { certificate: known.as_ref().and_then(|known| known.chain.first().cloned()), algorithms };
    let config = builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match known {
        Some(TlsIdentity { chain, key }) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    })
}

/// Accepts one certificate, or any.
#[derive(Debug)]
struct KnownServer {
    certificate: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for KnownServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificate.as_ref().is_some_and(|known| known != end_entity) {
            return Err(rustls::Error::General("the process on Flink's REST port has another certificate".to_owned()));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        date_time_ymd,
    };

    use super::*;

    /// Directory with an authority, and a certificate of it that a test may change.
    fn files(change: impl FnOnce(&mut CertificateParams)) -> PemFiles {
        let (issuer, key) = (authority(), KeyPair::generate().expect("a key"));
        let mut parameters = CertificateParams::new(["demo-rest".to_owned()]).expect("a name");
        change(&mut parameters);
        let certificate: Certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
        PemFiles {
            certificate: Some(certificate.pem().into_bytes()),
            key: Some(key.serialize_pem().into_bytes()),
            authority: Some(issuer.pem().into_bytes()),
        }
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut parameters = CertificateParams::new(Vec::<String>::new()).expect("no name");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority")
    }

    fn write(directory: &Path, files: &PemFiles) {
        for (name, content) in [(CERTIFICATE, &files.certificate), (KEY, &files.key), (AUTHORITY, &files.authority)] {
            std::fs::write(directory.join(name), content.as_deref().unwrap_or_default()).expect("a file");
        }
    }

    #[test]
    fn a_certificate_that_others_reject_is_told_with_the_reason() {
        let now = Timestamp::now();
        for usage in [Usage::Server, Usage::Both] {
            assert_eq!(rejection(&files(|_| ()), usage, now), None);
        }
        let expired = files(|parameters| parameters.not_after = date_time_ymd(2020, 1, 2));
        let why = rejection(&expired, Usage::Server, now);
        assert_eq!(why.as_deref(), Some("the certificate expired at 2020-01-02T00:00:00Z"));
        let early = files(|parameters| parameters.not_before = date_time_ymd(3000, 1, 1));
        assert!(rejection(&early, Usage::Both, now).is_some_and(|why| why.contains("not valid yet")));
        let server = files(|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert_eq!(rejection(&server, Usage::Server, now), None);
        assert!(rejection(&server, Usage::Both, now).is_some_and(|why| why.contains("client authentication")));
        let foreign = PemFiles { authority: Some(authority().pem().into_bytes()), ..files(|_| ()) };
        assert!(rejection(&foreign, Usage::Both, now).is_some_and(|why| why.contains("has not signed")));
    }

    #[test]
    fn a_certificate_that_trusts_itself_needs_no_authority() {
        let issuer = authority();
        let own = PemFiles {
            certificate: Some(issuer.pem().into_bytes()),
            key: Some(issuer.key().serialize_pem().into_bytes()),
            authority: None,
        };
        assert_eq!(own.trusted().expect("a certificate"), own.identity().expect("a certificate").chain);
        // As openssl makes it: an authority that is its own server, which Java accepts.
        assert_eq!(rejection(&own, Usage::Both, Timestamp::now()), None);
    }

    #[test]
    fn what_is_no_certificate_or_has_another_key_is_told_by_the_name_of_the_file() {
        let whole = files(|_| ());
        whole.identity().and_then(|identity| identity.check_key()).expect("it is sound");
        let told = |files: PemFiles| {
            let checked = files.identity().and_then(|identity| identity.check_key());
            format!("{:#}", checked.expect_err("a problem"))
        };
        let other = KeyPair::generate().expect("a key").serialize_pem().into_bytes();
        assert!(told(PemFiles { key: Some(other), ..whole.clone() }).starts_with("tls.key is not the key of"));
        assert_eq!(told(PemFiles { key: None, ..whole.clone() }), "tls.key is missing");
        let torn = Some(b"-----BEGIN CERTIFICATE-----".to_vec());
        assert_eq!(told(PemFiles { certificate: torn, ..whole }), "tls.crt is not a certificate in PEM");
    }

    #[test]
    fn the_error_of_a_handshake_is_found_below_those_of_connections() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, alert);
        let outer = std::io::Error::other(inner);
        let found = handshake_error(&outer).expect("the alert");
        assert!(told(found).contains("security.ssl.algorithms"), "{}", told(found));
        assert!(handshake_error(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)).is_none());
    }

    #[test]
    fn new_files_are_used_and_broken_ones_change_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(TlsDirectory::open(directory.path()).is_err());
        write(directory.path(), &files(|_| ()));
        let tls = TlsDirectory::open(directory.path()).expect("certificates");
        let now = || Arc::as_ptr(tls.connector().expect("a connector").config());
        let first = now();
        assert_eq!(now(), first, "nothing has changed");
        std::fs::write(directory.path().join(AUTHORITY), "nonsense").expect("a file");
        assert_eq!(now(), first, "the former ones are used");
        write(directory.path(), &files(|_| ()));
        let second = now();
        assert_ne!(second, first);
        assert_eq!(now(), second);
    }
}
