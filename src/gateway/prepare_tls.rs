//! Implements `flinkha prepare-tls`: makes key stores for Flink from the Secrets of `spec.tls`, before Flink starts.

use std::fs::{OpenOptions, create_dir_all};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;

use super::tls_arguments::{INTERNAL, TlsPart, TlsSecrets};
use crate::flink::key_store;
use crate::flink::tls::{KEY_STORE, PASSWORD, TRUST_STORE};
use crate::world::random;
use crate::world::tls::{AUTHORITY, CERTIFICATE, KEY, PemFiles, TlsIdentity, rejection};

/// Writes the stores.
///
/// # Errors
/// When a Secret cannot be used. The message names the field and the remedy.
pub fn run(secrets: &TlsSecrets) -> anyhow::Result<()> {
    secrets.parts().try_for_each(|part| {
        // One line: the kubelet shows the end of the log.
        let prepared = prepare(part, &secrets.stores_of(part.name));
        prepared.map_err(|error| anyhow::anyhow!("the Secret of spec.tls.{}: {error:#}", part.name))
    })
}

/// Whether pods start with these files, and others accept the certificate.
pub fn is_usable(part: TlsPart<'_>, files: &PemFiles) -> bool {
    KeyStores::of(part, files).is_ok_and(|stores| stores.warning.is_none())
}

/// The key stores of a part, as bytes.
struct KeyStores {
    key: Vec<u8>,
    trust: Vec<u8>,
    /// Why clients may reject the certificate.
    warning: Option<String>,
}

impl KeyStores {
    fn of(part: TlsPart<'_>, files: &PemFiles) -> anyhow::Result<Self> {
        let identity = files.identity()?;
        identity.check_key()?;
        let warning = rejection(files, part.usage, Timestamp::now());
        // With it Flink would start, and then reject every connection. Clients of REST decide for themselves.
        if let (INTERNAL, Some(why)) = (part.name, &warning) {
            anyhow::bail!("{why}; issue the certificate again");
        }
        let key = key_store::key_store(PASSWORD, &pkcs8(&identity)?, &identity.chain, &random::bytes()?);
        Ok(Self { key, trust: key_store::trust_store(PASSWORD, &files.trusted()?), warning })
    }
}

/// Returns the private key in the only format that key stores have.
fn pkcs8(identity: &TlsIdentity) -> anyhow::Result<Vec<u8>> {
    Ok(match &identity.key {
        PrivateKeyDer::Pkcs1(key) => key_store::rsa_as_pkcs8(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => key_store::ec_as_pkcs8(key.secret_sec1_der())
            .context("tls.key is of an elliptic curve other than P-256 and P-384")?,
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_owned(),
        _ => anyhow::bail!("tls.key is of an unknown kind"),
    })
}

fn prepare(part: TlsPart<'_>, to: &Path) -> anyhow::Result<()> {
    let files = PemFiles::read(part.secret)?;
    let stores = KeyStores::of(part, &files)?;
    if let Some(why) = stores.warning {
        tracing::warn!(why, "clients may reject the certificate of the Secret of spec.tls.rest");
    }
    create_dir_all(to).with_context(|| format!("failed to make {}", to.display()))?;
    let save = |name: &str, bytes: &[u8]| {
        let path = to.join(name);
        write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
    };
    save(KEY_STORE, &stores.key)?;
    save(TRUST_STORE, &stores.trust)?;
    // For the gateway: what this pod's Flink uses for as long as it lives.
    for (name, content) in [(CERTIFICATE, &files.certificate), (KEY, &files.key), (AUTHORITY, &files.authority)] {
        save(name, content.as_deref().unwrap_or_default())?;
    }
    tracing::info!(part = part.name, directory = %to.display(), "the key stores are there");
    Ok(())
}

/// Writes a file that only this user can read: Flink's container has the same one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?.write_all(bytes)
}
