//! Handles files that belong to the application and not to Flink: its jar, of which a copy is kept beside the HA data,
//! and savepoints.

use std::path::Path as LocalPath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use ring::digest::{Context as Digest, SHA256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reach::{FlinkConfiguration, NotCollectable, reach};
use crate::world::storage::{PARALLEL, Storage, local_path};

/// Directory of the copies of jars. It is not below [`super::MARKS`], whose children are marks.
pub const ARTIFACTS: &str = ".flinkha-artifacts";
/// File of a savepoint that makes it one.
const METADATA: &str = "_metadata";
/// Limit of the removal of an empty directory, which waits for a volume that does not answer.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Size of an upload part in bytes: the minimum of object stores.
const PART: usize = 5 << 20;

impl Storage {
    /// Writes the jar into a local file: the copy that the storage holds under `key`, or else the file at `uri`, of
    /// which it then stores a copy. The next fetch of any JobManager yields the same bytes, even if the file at `uri`
    /// has changed.
    ///
    /// # Errors
    /// When the jar cannot be read or written, or when it does not have the given SHA-256.
    pub async fn fetch(
        &self,
        uri: &str,
        key: &str,
        sha256: Option<&str>,
        to: &LocalPath,
        configuration: &FlinkConfiguration,
    ) -> anyhow::Result<()> {
        let kept = self.file(&format!("{ARTIFACTS}/{key}"));
        if self.exists(&kept).await? {
            let found = download(&self.store, &kept, to)
                .await
                .context("failed to read the copy of the jar that is kept with the HA data")?;
            return check(&found, sha256);
        }
        let (store, path) = reach(uri, configuration).map_err(|NotCollectable { why, .. }| anyhow::anyhow!("{why}"))?;
        let found = match download(&store, &path, to).await {
            // The error of a web server contains its error page, which hides the cause.
            Err(error) if is_missing(&error) => anyhow::bail!("failed to fetch {uri}: there is no such file"),
            found => found.with_context(|| format!("failed to fetch {uri}"))?,
        };
        check(&found, sha256)?;
        self.keep(&kept, to).await.context("failed to keep a copy of the jar with the HA data")?;
        // Another JobManager may have stored other bytes at the same moment; both use the stored copy.
        let found = download(&self.store, &kept, to)
            .await
            .context("failed to read the copy of the jar that is kept with the HA data")?;
        check(&found, sha256)
    }

    /// Removes all copies of jars.
    pub async fn remove_artifacts(&self) -> object_store::Result<()> {
        let directory = self.file(ARTIFACTS);
        let files: Vec<_> = self.store.list(Some(&directory)).map_ok(|file| file.location).try_collect().await?;
        for file in files {
            self.delete(&file).await?;
        }
        Ok(())
    }

    async fn exists(&self, path: &Path) -> object_store::Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, path: &Path, from: &LocalPath) -> anyhow::Result<()> {
        let mut file = File::open(from).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(path).await?, PART);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            upload.wait_for_capacity(1).await?;
            upload.write(&buffer[..read]);
        }
        upload.finish().await?;
        Ok(())
    }
}

/// Copies an object into a local file in bounded memory. Returns its SHA-256 in hex.
async fn download(store: &Arc<dyn ObjectStore>, path: &Path, to: &LocalPath) -> anyhow::Result<String> {
    let mut stream = store.get(path).await?.into_stream();
    let mut file = File::create(to).await.with_context(|| format!("failed to write {}", to.display()))?;
    let mut digest = Digest::new(&SHA256);
    while let Some(bytes) = stream.try_next().await? {
        digest.update(&bytes);
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    Ok(digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. }))
}

fn check(found: &str, sha256: Option<&str>) -> anyhow::Result<()> {
    let Some(wanted) = sha256 else { return Ok(()) };
    anyhow::ensure!(
        wanted.eq_ignore_ascii_case(found),
        "the jar has the SHA-256 {found}, and not {wanted} as spec.job.sha256 says"
    );
    Ok(())
}

/// Returns the URI of the newest complete savepoint in a directory or at the directory itself. `None` if there is none,
/// or if the gateway cannot reach the storage.
///
/// # Errors
/// When the directory cannot be read.
pub async fn savepoint_in(uri: &str, configuration: &FlinkConfiguration) -> anyhow::Result<Option<String>> {
    let Ok((store, root)) = reach(uri, configuration) else { return Ok(None) };
    let files: Vec<_> = store.list(Some(&root)).try_collect().await.with_context(|| format!("failed to list {uri}"))?;
    let metadata = files.iter().filter(|file| file.location.filename() == Some(METADATA));
    let newest = metadata.max_by_key(|file| file.last_modified);
    Ok(newest.and_then(|file| {
        let parts: Vec<String> = file.location.prefix_match(&root)?.map(|part| part.as_ref().to_owned()).collect();
        let directory = parts.split_last().map_or(&[][..], |(_, directory)| directory);
        let uri = uri.trim_end_matches('/');
        Some(directory.iter().fold(uri.to_owned(), |uri, part| format!("{uri}/{part}")))
    }))
}

/// Is a savepoint complete? If the gateway cannot reach the storage, it trusts Flink and answers yes.
///
/// # Errors
/// When its directory cannot be read.
pub async fn is_savepoint(location: &str, configuration: &FlinkConfiguration) -> anyhow::Result<bool> {
    Ok(reach(location, configuration).is_err() || savepoint_in(location, configuration).await?.is_some())
}

/// Removes a savepoint; one that is gone already is no error. Its metadata go first: what an interruption leaves is no
/// savepoint that anybody could take for a whole one, and the next call finds the rest.
///
/// # Errors
/// When the gateway cannot reach the storage, or a file cannot be removed.
pub async fn remove_savepoint(location: &str, configuration: &FlinkConfiguration) -> anyhow::Result<()> {
    let (store, root) =
        reach(location, configuration).map_err(|NotCollectable { why, .. }| anyhow::anyhow!("{why}"))?;
    let files: Vec<_> =
        store.list(Some(&root)).try_collect().await.with_context(|| format!("failed to list {location}"))?;
    let (metadata, others): (Vec<_>, Vec<_>) =
        files.into_iter().map(|file| file.location).partition(|file| file.filename() == Some(METADATA));
    for group in [metadata, others] {
        let removed = stream::iter(group).map(|file| delete(&store, file)).buffer_unordered(PARALLEL);
        removed.try_collect::<()>().await.with_context(|| format!("failed to remove {location}"))?;
    }
    // A bucket has no directories. Those of a volume go up to that of the request, as far as they are empty.
    if let Some(directory) = local_path(location) {
        for directory in directory.ancestors().take(3) {
            let _ = tokio::time::timeout(REMOVE_TIMEOUT, tokio::fs::remove_dir(directory)).await;
        }
    }
    Ok(())
}

async fn delete(store: &Arc<dyn ObjectStore>, file: Path) -> object_store::Result<()> {
    match store.delete(&file).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_jar_is_fetched_once_and_checked() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let none = FlinkConfiguration::new();
        let storage = Storage::new(&at("ha").display().to_string(), "ns.demo", &none).expect("file storage");
        let (source, target) = (at("app.jar"), at("local.jar"));
        std::fs::write(&source, "jar").expect("a jar");
        let uri = format!("file://{}", source.display());
        let wrong =
            storage.fetch(&uri, "k", Some(&"0".repeat(64)), &target, &none).await.expect_err("another jar").to_string();
        assert!(wrong.contains("spec.job.sha256"), "{wrong}");
        storage.fetch(&uri, "k", None, &target, &none).await.expect("fetched");
        std::fs::remove_file(&source).expect("removed");
        std::fs::remove_file(&target).expect("removed");
        storage.fetch(&uri, "k", None, &target, &none).await.expect("found again");
        assert_eq!(std::fs::read_to_string(&target).expect("a jar"), "jar");
        assert!(storage.marks().await.expect("marks").is_empty(), "a copy is no mark");
        assert!(storage.files().try_collect::<Vec<_>>().await.expect("files").is_empty(), "and no file of Flink's");
        storage.remove_artifacts().await.expect("removed");
        let gone = storage.fetch(&uri, "k", None, &target, &none).await.expect_err("gone").to_string();
        assert!(gone.contains(&uri), "{gone}");
    }

    #[tokio::test]
    async fn the_newest_savepoint_of_a_directory_is_found_and_verified() {
        let directory = tempfile::tempdir().expect("a directory");
        let uri = format!("file://{}", directory.path().display());
        let none = FlinkConfiguration::new();
        assert_eq!(savepoint_in(&uri, &none).await.expect("read"), None);
        let savepoint = directory.path().join("savepoint-1");
        std::fs::create_dir_all(&savepoint).expect("a directory");
        assert!(!is_savepoint(&format!("{uri}/savepoint-1"), &none).await.expect("read"), "not complete");
        std::fs::write(savepoint.join("_metadata"), "x").expect("a file");
        assert_eq!(savepoint_in(&uri, &none).await.expect("read"), Some(format!("{uri}/savepoint-1")));
        assert!(is_savepoint(&format!("{uri}/savepoint-1"), &none).await.expect("read"));
        assert!(is_savepoint("hdfs:///elsewhere", &none).await.expect("not read"));
    }

    #[tokio::test]
    async fn a_savepoint_is_removed_with_its_empty_directories_and_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (root, none) = (directory.path().join("ns.demo"), FlinkConfiguration::new());
        let make = |name: &str| {
            let savepoint = root.join(name);
            std::fs::create_dir_all(&savepoint).expect("a directory");
            for file in ["_metadata", "0b3c", "1d4e"] {
                std::fs::write(savepoint.join(file), "x").expect("a file");
            }
            format!("file:{}", savepoint.display())
        };
        let (first, beside) = (make("periodic-1/3/savepoint-1"), make("periodic-2/3/savepoint-2"));
        let longer = make("periodic-2/3/savepoint-22");
        remove_savepoint(&first, &none).await.expect("removed");
        assert!(!root.join("periodic-1").exists() && root.exists());
        remove_savepoint(&beside, &none).await.expect("removed");
        assert!(!root.join("periodic-2/3/savepoint-2").exists());
        assert!(is_savepoint(&longer, &none).await.expect("read"), "its name only begins so");
        remove_savepoint(&first, &none).await.expect("it is gone already");
        let unreached = remove_savepoint("hdfs:///s/savepoint-1", &none).await.expect_err("not reached").to_string();
        assert!(unreached.contains("not hdfs:"), "{unreached}");
    }
}
