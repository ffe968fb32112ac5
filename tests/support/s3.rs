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
const ACCESS_KEY_SETTING: &str = "s3.access-key";
const SECRET_KEY_SETTING: &str = "s3.secret-key";
pub const SECRET_KEY: &str = "a secret of this test";

pub struct S3 {
    endpoint: String,
    directory: PathBuf,
    plugins: PathBuf,
    secret_of_gateways: &'static str,
    /// Gateways have the keys from a mounted Secret, in this directory.
    secrets: Option<PathBuf>,
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
        let plugins = directory.join("plugins");
        Self { endpoint, directory: bucket, plugins, secret_of_gateways, secrets: None, process }
    }

    /// Gives gateways the keys as the kubelet mounts a Secret of `spec.flinkConfigurationFrom`, and in no other way.
    pub fn with_keys_in_a_secret(mut self) -> Self {
        let secrets = self.plugins.with_file_name("secrets");
        let secret = secrets.join("0.flink-s3");
        std::fs::create_dir_all(&secret).expect("failed to make a directory");
        for (key, value) in [(ACCESS_KEY_SETTING, ACCESS_KEY), (SECRET_KEY_SETTING, SECRET_KEY)] {
            std::fs::write(secret.join(key), format!("{value}\n")).expect("failed to write a Secret");
        }
        self.secrets = Some(secrets);
        self
    }

    /// The directory of the Secret.
    pub fn secret(&self) -> Option<PathBuf> {
        Some(self.secrets.as_ref()?.join("0.flink-s3"))
    }

    /// What gateways are told of it.
    pub fn flags(&self) -> Vec<String> {
        let from = |secrets: &PathBuf| ["--flink-configuration-from".to_owned(), secrets.display().to_string()];
        self.secrets.iter().flat_map(from).collect()
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

    /// Makes the settings of gateways out of Flink's.
    fn of_gateways(&self, configuration: &mut Configuration) {
        if self.secrets.is_some() {
            configuration.retain(|key, _| ![ACCESS_KEY_SETTING, SECRET_KEY_SETTING].contains(&key.as_str()));
        } else {
            configuration.insert(SECRET_KEY_SETTING.to_owned(), self.secret_of_gateways.to_owned());
        }
    }

    /// Flink's settings for it.
    pub fn configuration(&self) -> Configuration {
        let settings = [
            ("s3.endpoint", self.endpoint.as_str()),
            (ACCESS_KEY_SETTING, ACCESS_KEY),
            (SECRET_KEY_SETTING, SECRET_KEY),
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
        self.s3.iter().for_each(|s3| s3.of_gateways(&mut configuration));
        configuration
    }

    pub(super) fn plugins(&self) -> Vec<(String, String)> {
        self.s3.as_ref().map(|s3| s3.plugins(&self.version)).unwrap_or_default()
    }
}
