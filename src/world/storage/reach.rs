//! Opens a store that can be read and written, from `high-availability.storageDir` and Flink's own settings. The caller
//! reports a storage that the gateway cannot reach; nobody ignores it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::local::LocalFiles;
use super::settings::S3_PREFIXES;

/// Limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Few retries, so that the gateway soon reports an unreachable storage.
const RETRIES: usize = 2;

/// Why the gateway cannot reach the storage directory.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("files in {storage_dir} are not collected: {why}")]
pub struct NotCollectable {
    pub storage_dir: String,
    pub why: String,
}

/// Flink's settings; those of its file systems are used here.
pub type FlinkConfiguration = crate::flink::config::Configuration;

/// Returns the store, and the path of the storage directory in it. It makes no request.
pub fn reach(
    storage_dir: &str,
    configuration: &FlinkConfiguration,
) -> Result<(Arc<dyn ObjectStore>, Path), NotCollectable> {
    let failed = |why: String| NotCollectable { storage_dir: storage_dir.to_owned(), why };
    let (scheme, rest) = storage_dir.split_once(':').unwrap_or(("file", storage_dir));
    if scheme == "file" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let path = path.strip_prefix('/').ok_or_else(|| failed("a path of a file: URI must be absolute".to_owned()))?;
        let path = Path::parse(path.trim_end_matches('/')).map_err(|error| failed(error.to_string()))?;
        return Ok((Arc::new(LocalFiles::new(path.clone())), path));
    }
    let url = Url::parse(storage_dir).map_err(|error| failed(error.to_string()))?;
    let path = Path::from_url_path(url.path()).map_err(|error| failed(error.to_string()))?;
    let store: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        "s3" | "s3a" | "s3p" => s3(&url, configuration),
        "gs" => google(&url, configuration),
        "abfs" | "abfss" => azure(&url, configuration),
        // Only the jar of an application can be there: a web server stores no HA data.
        "https" => https(&url),
        _ => {
            return Err(failed(format!(
                "the gateway reaches file:, s3:, s3a:, gs:, abfs: and abfss: storage, not {scheme}:"
            )));
        }
    };
    Ok((store.map_err(|error| failed(error.to_string()))?, path))
}

/// Credentials: Flink's own settings, otherwise AWS_* variables, a web identity, or the role of the machine or pod.
fn s3(url: &Url, configuration: &FlinkConfiguration) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(url.host_str().unwrap_or_default());
    let setting = |name: &str| s3_setting(configuration, name);
    if let Some(endpoint) = setting("endpoint") {
        // Under the names of flink-s3-fs-hadoop and -presto.
        let encrypts = setting("connection.ssl.enabled").or_else(|| setting("ssl.enabled")) != Some("false");
        let scheme = if encrypts { "https" } else { "http" };
        let endpoint = if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(key), Some(secret)) = (setting("access.key"), setting("secret.key")) {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    if let Some(token) = setting("session.token") {
        builder = builder.with_token(token);
    }
    if let Some(region) = setting("endpoint.region").or_else(|| setting("region")) {
        builder = builder.with_region(region);
    }
    Ok(Arc::new(builder.with_client_options(client()?.with_allow_http(true)).with_retry(retries()).build()?))
}

/// Looks up a setting that Flink's S3 file systems accept under several names (`S3FileSystemFactory` of
/// flink-s3-fs-hadoop and -presto): `s3.access-key`, `s3.access.key`, `s3a.access.key`, `fs.s3a.access.key`,
/// `presto.s3.access-key`.
fn s3_setting<'a>(configuration: &'a FlinkConfiguration, name: &str) -> Option<&'a str> {
    let found = configuration.iter().find(|(key, _)| {
        S3_PREFIXES.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.replace('-', ".") == name))
    });
    found.map(|(_, value)| value.as_str())
}

/// Credentials: Flink's own setting, otherwise GOOGLE_* variables, or the identity of the machine or pod.
fn google(url: &Url, configuration: &FlinkConfiguration) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(url.host_str().unwrap_or_default());
    // `GSFileSystemFactory` takes both prefixes.
    let keys = [
        "gs.auth.service.account.json.keyfile",
        "fs.gs.auth.service.account.json.keyfile",
        "google.cloud.auth.service.account.json.keyfile",
    ];
    if let Some(file) = keys.iter().find_map(|key| configuration.get(*key)) {
        builder = builder.with_service_account_path(file);
    }
    Ok(Arc::new(builder.with_client_options(client()?).with_retry(retries()).build()?))
}

/// Format: `abfss://<container>@<account>.dfs.core.windows.net/<path>`. Credentials: Flink's own setting, otherwise
/// AZURE_* variables, or the identity of the pod.
fn azure(url: &Url, configuration: &FlinkConfiguration) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
    let host = url.host_str().unwrap_or_default();
    let hosts = [host.to_owned(), host.replace(".dfs.", ".blob.")];
    if let Some(key) = hosts.iter().find_map(|host| configuration.get(&format!("fs.azure.account.key.{host}"))) {
        builder = builder.with_access_key(key);
    }
    Ok(Arc::new(builder.with_client_options(client()?).with_retry(retries()).build()?))
}

fn https(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let origin = url.origin().ascii_serialization();
    Ok(Arc::new(HttpBuilder::new().with_url(origin).with_client_options(client()?).with_retry(retries()).build()?))
}

/// Compiles in the public root certificates, because the image has none; SSL_CERT_FILE adds others.
fn client() -> object_store::Result<ClientOptions> {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(Duration::from_secs(5));
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        options = options.with_root_certificate(Certificate::from_der(root)?);
    }
    Ok(options)
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: 2 * REQUEST_TIMEOUT, ..RetryConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(entries: &[(&str, &str)]) -> FlinkConfiguration {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_scheme_that_is_reached_has_its_path() {
        for (storage_dir, path) in [
            ("file:///flink/ha", "flink/ha"),
            ("file:/flink/ha/", "flink/ha"),
            ("/flink/ha", "flink/ha"),
            ("s3://bucket/flink/ha", "flink/ha"),
            ("s3a://bucket/ha", "ha"),
            ("gs://bucket/ha", "ha"),
        ] {
            let key = configuration(&[("s3.access-key", "a"), ("s3.secret-key", "b")]);
            assert_eq!(
                reach(storage_dir, &key).map(|(_, path)| path.to_string()),
                Ok(path.to_owned()),
                "{storage_dir}"
            );
        }
        let azure = configuration(&[("fs.azure.account.key.demo.dfs.core.windows.net", "a2V5")]);
        assert!(reach("abfss://box@demo.dfs.core.windows.net/ha", &azure).is_ok());
    }

    #[test]
    fn what_is_not_reached_is_told_with_the_reason() {
        for other in ["hdfs:///ha", "flink/ha", "file://host/ha", "oss://bucket/ha"] {
            let error = reach(other, &FlinkConfiguration::new()).expect_err(other).to_string();
            assert!(error.contains(other), "{error}");
        }
    }

    #[test]
    fn settings_of_s3_have_many_names() {
        for key in ["s3.access-key", "s3.access.key", "s3a.access.key", "fs.s3a.access.key"] {
            assert_eq!(s3_setting(&configuration(&[(key, "x")]), "access.key"), Some("x"), "{key}");
        }
        assert_eq!(s3_setting(&configuration(&[("s3.endpoint.region", "x")]), "endpoint"), None);
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_encrypted_unless_flink_is_told_otherwise() {
        for (settings, scheme) in [
            (&[][..], "https"),
            (&[("s3.connection.ssl.enabled", "true")][..], "https"),
            (&[("fs.s3a.connection.ssl.enabled", "false")][..], "http"),
            (&[("presto.s3.ssl.enabled", "false")][..], "http"),
        ] {
            let all =
                [&[("s3.endpoint", "minio:9000"), ("s3.access-key", "a"), ("s3.secret-key", "b")], settings].concat();
            let (store, _) = reach("s3://bucket/ha", &configuration(&all)).unwrap_or_else(|error| panic!("{error}"));
            let told = format!("{store:?}");
            assert!(told.contains(&format!("{scheme}://minio:9000")), "{settings:?}: {told}");
        }
    }
}
