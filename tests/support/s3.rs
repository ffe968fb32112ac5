//! A real S3 server over a directory: what it stores can be looked at and laid down as files.

use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use super::cluster::Provider;
use super::eventually;
use super::flink::Configuration;
use super::host::address;
use super::process::Process;
use super::process::Program;
use super::script;
use super::seconds;

const BUCKET: &str = "bucket";
const ACCESS_KEY: &str = "flink";
pub const SECRET_KEY: &str = "a secret of this test";

pub struct S3 {
    endpoint: String,
    directory: PathBuf,
    plugins: PathBuf,
    secret_of_gateways: &'static str,
    pub process: Process,
}

impl S3 {
    /// Serves `<directory>/bucket` and returns when it answers.
    pub async fn start(directory: &Path, secret_of_gateways: &'static str) -> Self {
        let address = format!("{}:7070", address());
        let bucket = directory.join("served").join(BUCKET);
        std::fs::create_dir_all(&bucket).expect("failed to make a bucket");
        let process = Process::start(Program {
            path: script("rig/s3-server", &[]).into(),
            arguments: ["--quiet", "--port", &address, "--access", ACCESS_KEY, "--secret", SECRET_KEY, "posix"]
                .into_iter()
                .map(Into::into)
                .chain([directory.join("served").into()])
                .collect(),
            environment: Vec::new(),
            log: directory.join("s3.log"),
        });
        let client = reqwest::Client::builder().no_proxy().timeout(seconds(2)).build().expect("a client");
        let endpoint = format!("http://{address}");
        eventually("an answer of the S3 server", seconds(20), async || client.get(&endpoint).send().await.ok()).await;
        Self { endpoint, directory: bucket, plugins: directory.join("plugins"), secret_of_gateways, process }
    }

    /// The environment by which Flink finds its S3 file system, which it loads only from a directory of plugins.
    pub fn plugins(&self, version: &str) -> Vec<(String, String)> {
        let link = self.plugins.join("s3/plugin.jar");
        if !link.exists() {
            let jar = script("rig/flink-plugin", &["flink-s3-fs-hadoop", version]);
            std::fs::create_dir_all(self.plugins.join("s3")).expect("failed to make a directory");
            std::os::unix::fs::symlink(jar, link).expect("failed to link a plugin");
        }
        vec![("FLINK_PLUGINS_DIR".to_owned(), self.plugins.display().to_string())]
    }

    /// The bucket as a directory.
    pub fn bucket(&self) -> &Path {
        &self.directory
    }

    pub fn uri(&self) -> String {
        format!("s3://{BUCKET}")
    }

    /// What differs between Flink's settings and its gateways'.
    pub fn gateways_secret(&self) -> (String, String) {
        ("s3.secret-key".to_owned(), self.secret_of_gateways.to_owned())
    }

    /// Flink's settings for it.
    pub fn configuration(&self) -> Configuration {
        let settings = [
            ("s3.endpoint", self.endpoint.as_str()),
            ("s3.access-key", ACCESS_KEY),
            ("s3.secret-key", SECRET_KEY),
            ("s3.path.style.access", "true"),
            // Hadoop removes markers of parent directories, which a server over directories refuses while there is
            // something in them.
            ("s3.directory.marker.retention", "keep"),
        ];
        settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl Cluster {
    /// As [`Cluster::start`], with HA data in S3.
    pub async fn start_on_s3(provider: Provider, job_managers: usize, task_managers: usize) -> Self {
        Self::start_on_s3_with(provider, job_managers, task_managers, SECRET_KEY).await
    }

    /// The same with gateways that know this secret key.
    pub async fn start_on_s3_with(
        provider: Provider,
        job_managers: usize,
        task_managers: usize,
        secret_of_gateways: &'static str,
    ) -> Self {
        let mut cluster = Self::prepare(provider, 1).await;
        cluster.s3 = Some(S3::start(cluster.path(), secret_of_gateways).await);
        cluster.up(job_managers, task_managers).await
    }

    pub(super) fn gateway_configuration(&self) -> Configuration {
        let mut configuration = self.configuration();
        configuration.extend(self.s3.iter().map(S3::gateways_secret));
        configuration
    }

    pub(super) fn plugins(&self) -> Vec<(String, String)> {
        self.s3.as_ref().map(|s3| s3.plugins(&self.version)).unwrap_or_default()
    }
}
