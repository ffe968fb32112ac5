//! `high-availability.storageDir` as the gateway sees it: through the volumes that it shares with its JVM.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::fs;

use crate::flink::checkpoint;
use crate::flink::result::{self, Entry, Store};

/// An entry of a result store, accumulators included, or the metadata of a checkpoint is smaller; a longer file is not read.
const FILE_LIMIT: u64 = 16 << 20;

/// The storage directory of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    root: PathBuf,
    /// Flink's `high-availability.cluster-id`.
    cluster: String,
}

/// Who uses a storage directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub owner: String,
    /// Compared only with itself: a mark whose beat changes has a living owner.
    pub beat: SystemTime,
}

/// The scheme of the storage directory, which the gateway cannot reach.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("result entries in {0} are not collected: the gateway reaches file: storage only")]
pub struct NotCollectable(pub String);

impl Storage {
    /// # Errors
    /// For a scheme other than `file`.
    pub fn new(storage_dir: &str, cluster: &str) -> Result<Self, NotCollectable> {
        let path = match storage_dir.split_once(':') {
            None => storage_dir,
            Some(("file", path)) => path.strip_prefix("//").unwrap_or(path),
            Some(_) => return Err(NotCollectable(storage_dir.to_owned())),
        };
        if !path.starts_with('/') {
            return Err(NotCollectable(storage_dir.to_owned()));
        }
        Ok(Self { root: PathBuf::from(path), cluster: cluster.to_owned() })
    }

    /// All entries of both result stores. A store that does not exist has none.
    ///
    /// # Errors
    /// When a directory or a file in it cannot be read: then nothing is known.
    pub async fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for store in Store::ALL {
            let mut directory = match fs::read_dir(self.store(store)).await {
                Ok(directory) => directory,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            while let Some(file) = directory.next_entry().await? {
                let name = file.file_name().to_string_lossy().into_owned();
                if let Some(content) = read_bounded(&file.path()).await? {
                    entries.extend(result::entry(store, &name, &String::from_utf8_lossy(&content)));
                }
            }
        }
        Ok(entries)
    }

    /// Removes a clean entry; one that is gone already is fine.
    pub async fn remove(&self, store: Store, id: &str) -> io::Result<()> {
        remove_file(&self.store(store).join(format!("{id}.json"))).await
    }

    /// Removes a DIRTY entry; one that is gone already is fine.
    pub async fn remove_dirty(&self, store: Store, id: &str) -> io::Result<()> {
        remove_file(&self.store(store).join(format!("{id}_DIRTY.json"))).await
    }

    /// Writes a DIRTY entry, whole or not at all: Flink does not look for it under its first name.
    pub async fn write_dirty(&self, store: Store, id: &str, content: &str) -> io::Result<()> {
        let directory = self.store(store);
        let unfinished = directory.join(format!(".{id}.unfinished"));
        fs::create_dir_all(&directory).await?;
        fs::write(&unfinished, content).await?;
        fs::rename(unfinished, directory.join(format!("{id}_DIRTY.json"))).await
    }

    /// Removes the checkpoint metadata files of these jobs, which must be terminal; returns how many. A leader that dies between writing such a
    /// file and its pointer leaves one that no pointer names. A file that is not understood stays.
    pub async fn remove_checkpoints_of(&self, jobs: &[String]) -> io::Result<usize> {
        let mut removed = 0;
        let mut directory = match fs::read_dir(self.root.join(&self.cluster)).await {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        while let Some(file) = directory.next_entry().await? {
            if !file.file_name().to_string_lossy().starts_with(checkpoint::FILE_PREFIX) {
                continue;
            }
            let job = read_bounded(&file.path()).await?.as_deref().and_then(checkpoint::job);
            if job.is_some_and(|job| jobs.contains(&job)) {
                remove_file(&file.path()).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The mark of the cluster that uses this directory: who, and when it last said so by the file system's own clock.
    pub async fn mark(&self) -> io::Result<Option<Mark>> {
        let path = self.mark_path();
        match fs::read_to_string(&path).await {
            Ok(owner) => Ok(Some(Mark { owner, beat: fs::metadata(&path).await?.modified()? })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Marks the directory as used by this owner, now.
    pub async fn claim(&self, owner: &str) -> io::Result<()> {
        let path = self.mark_path();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).await?;
        }
        fs::write(path, owner).await
    }

    fn mark_path(&self) -> PathBuf {
        self.root.join(&self.cluster).join(".flinkha-owner")
    }

    fn store(&self, store: Store) -> PathBuf {
        self.root.join(store.directory()).join(&self.cluster)
    }
}

async fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `None` for a file that vanished since it was listed, renamed or removed by Flink, and for one that is too long: nothing is known of it.
async fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read: io::Result<Option<Vec<u8>>> = async {
        if fs::metadata(path).await?.len() > FILE_LIMIT {
            return Ok(None);
        }
        fs::read(path).await.map(Some)
    }
    .await;
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_of_files_are_reached() {
        for reached in ["file:///flink/ha", "file:/flink/ha", "/flink/ha"] {
            assert_eq!(Storage::new(reached, "ns.demo").map(|storage| storage.root), Ok(PathBuf::from("/flink/ha")));
        }
        for other in ["s3://bucket/ha", "flink/ha", "file://host/ha", "hdfs:///ha"] {
            assert!(Storage::new(other, "ns.demo").is_err(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_mark_names_its_owner_and_a_new_directory_has_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = Storage::new(&directory.path().display().to_string(), "ns.demo").expect("file storage");
        assert_eq!(storage.mark().await.expect("no mark"), None);
        storage.claim("one").await.expect("claim");
        assert_eq!(storage.mark().await.expect("mark").map(|mark| mark.owner).as_deref(), Some("one"));
        assert!(storage.entries().await.expect("entries").is_empty());
    }
}
