//! A real S3 server over a directory: what it stores can be looked at and laid down as files.

use std::path::{Path, PathBuf};

use super::flink::Configuration;
use super::host::address;
use super::process::{Process, Program};
use super::{eventually, script, seconds};

const BUCKET: &str = "bucket";
const ACCESS_KEY: &str = "flink";
const SECRET_KEY: &str = "a secret of this test";

pub struct S3 {
    endpoint: String,
    directory: PathBuf,
    plugins: PathBuf,
    pub process: Process,
}

impl S3 {
    /// Serves `<directory>/bucket` and returns when it answers.
    pub async fn start(directory: &Path) -> Self {
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
        Self { endpoint, directory: bucket, plugins: directory.join("plugins"), process }
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

    /// Flink's settings for it.
    pub fn configuration(&self) -> Configuration {
        let settings = [
            ("s3.endpoint", self.endpoint.as_str()),
            ("s3.access-key", ACCESS_KEY),
            ("s3.secret-key", SECRET_KEY),
            ("s3.path.style.access", "true"),
            // Hadoop removes markers of parent directories, which a server over directories refuses while there is something in them.
            ("s3.directory.marker.retention", "keep"),
        ];
        settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}
