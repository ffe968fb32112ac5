//! Flags that tell where the certificates for Flink's own TLS are.

use std::path::{Path, PathBuf};

use crate::api::names;
use crate::world::tls::Usage;

/// Directories with the Secrets of `spec.tls`: flags of `flinkha gateway` and `flinkha prepare-tls`.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsSecrets {
    /// Directory with the Secret of spec.tls.internal.
    #[arg(long = "tls-internal")]
    pub internal: Option<PathBuf>,
    /// Directory with the Secret of spec.tls.rest.
    #[arg(long = "tls-rest")]
    pub rest: Option<PathBuf>,
    /// spec.tls.rest.clientAuthentication.
    #[arg(long = "tls-rest-client-authentication")]
    pub rest_client_authentication: bool,
    /// Directory below which each has its key stores for Flink, and the certificate that they were made of.
    #[arg(long = "tls-stores", default_value = names::TLS_STORES)]
    pub stores: PathBuf,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPart<'a> {
    /// Field of the resource, and name of the directory with the stores.
    pub name: &'static str,
    /// Directory with the Secret.
    pub secret: &'a Path,
    pub usage: Usage,
}

/// Names of [`TlsPart`]s.
pub const INTERNAL: &str = "internal";
pub const REST: &str = "rest";

impl TlsSecrets {
    pub fn parts(&self) -> impl Iterator<Item = TlsPart<'_>> {
        let usage = if self.rest_client_authentication { Usage::Both } else { Usage::Server };
        let parts = [(INTERNAL, &self.internal, Usage::Both), (REST, &self.rest, usage)];
        parts.into_iter().filter_map(|(name, secret, usage)| Some(TlsPart { name, secret: secret.as_deref()?, usage }))
    }

    /// Directory with a part's key stores.
    pub fn stores_of(&self, part: &str) -> PathBuf {
        self.stores.join(part)
    }
}
