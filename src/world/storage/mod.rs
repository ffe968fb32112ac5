//! Reads and writes `high-availability.storageDir` with the volumes, settings and identity of the gateway's JVM.

pub mod artifact;
mod deadline;
mod local;
pub mod reach;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, Result};

use self::reach::{FlinkConfiguration, NotCollectable};
use crate::flink::job_id::JobId;
use crate::flink::result::{self, Entry, Store};
use crate::flink::{checkpoint, ha_file};

/// Longest file that is read, in bytes. An entry of a result store, accumulators included, and the metadata of a
/// checkpoint are smaller.
const FILE_LIMIT: u64 = 16 << 20;

/// Number of concurrent requests about single files.
const PARALLEL: usize = 16;

/// Directory of the marks, the files by which clusters say that they use the directory around it. Each mark has its
/// owner's id as its name.
const MARKS: &str = ".flinkha";

/// The storage directory of one cluster.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// Flink's `high-availability.cluster-id`.
    cluster: String,
    /// The URI as the user wrote it.
    uri: String,
    /// The job of each checkpoint whose metadata has been read, by path. Flink never changes such a file.
    jobs: Arc<Mutex<HashMap<String, JobId>>>,
}

/// Limit of that map.
const REMEMBERED: usize = 10_000;

/// The mark of a cluster that uses a storage directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkFile {
    pub owner: String,
    /// When the owner last wrote it, by the storage's own clock.
    pub beat: SystemTime,
}

/// A file in the cluster's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the cluster's directory, for example `blob/job_<id>/blob_p-<key>`.
    pub path: String,
    pub bytes: u64,
    /// When it was written, by the storage's own clock.
    pub written: SystemTime,
}

impl File {
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.written).unwrap_or_default()
    }
}

impl Storage {
    /// Opens the storage directory of a cluster. It makes no request.
    ///
    /// # Errors
    /// For a scheme that the gateway cannot reach, or for invalid settings.
    pub fn new(
        storage_dir: &str,
        cluster: &str,
        configuration: &FlinkConfiguration,
    ) -> std::result::Result<Self, NotCollectable> {
        let (store, root) = reach::reach(storage_dir, configuration)?;
        let scheme = storage_dir.split_once(':').map_or("file", |(scheme, _)| scheme);
        for sentence in settings::unfollowed(scheme, configuration) {
            tracing::warn!("{sentence}");
        }
        let uri = storage_dir.trim_end_matches('/').to_owned();
        Ok(Self { store, root, cluster: cluster.to_owned(), uri, jobs: Arc::default() })
    }

    /// Returns all entries of both result stores. A store that does not exist has none.
    ///
    /// # Errors
    /// When a directory or a file in it cannot be read; nothing is known then.
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        // An application ends after its jobs, so its store is read first: whoever finds its entry finds theirs too.
        for store in Store::ALL.into_iter().rev() {
            let directory = self.store(store);
            let mut files = self.store.list(Some(&directory));
            while let Some(file) = files.try_next().await? {
                let Some(name) = below(&directory, &file).filter(|name| !name.contains('/')) else { continue };
                entries.extend(match self.read(&file).await? {
                    Some(content) => result::entry(store, &name, &String::from_utf8_lossy(&content)),
                    // Flink has renamed or removed it since it was listed: this job's end is not read yet.
                    None => result::unread(store, &name),
                });
            }
        }
        entries.sort_by_key(|entry| entry.store);
        Ok(entries)
    }

    /// Removes a clean entry; a missing one is no error.
    pub async fn remove(&self, store: Store, id: JobId) -> Result<()> {
        self.delete(&self.store(store).join(format!("{id}.json"))).await
    }

    /// Removes a DIRTY entry; a missing one is no error.
    pub async fn remove_dirty(&self, store: Store, id: JobId) -> Result<()> {
        self.delete(&self.store(store).join(format!("{id}_DIRTY.json"))).await
    }

    /// Removes an entry under the name under which it was read; a missing one is no error.
    pub async fn remove_entry(&self, entry: &Entry) -> Result<()> {
        if entry.dirty {
            self.remove_dirty(entry.store, entry.id).await
        } else {
            self.remove(entry.store, entry.id).await
        }
    }

    /// Writes a DIRTY entry atomically.
    pub async fn write_dirty(&self, store: Store, id: JobId, content: String) -> Result<()> {
        self.store.put(&self.store(store).join(format!("{id}_DIRTY.json")), content.into()).await.map(drop)
    }

    /// Streams all files of the cluster's directory except the marks, unordered and in bounded memory. A directory that
    /// does not exist has none.
    pub fn files(&self) -> BoxStream<'static, Result<File>> {
        let directory = self.directory();
        let files = self.store.list(Some(&directory)).try_filter_map(move |file| {
            let path = below(&directory, &file).filter(|path| !path.starts_with(MARKS));
            let file = path.map(|path| File { path, bytes: file.size, written: file.last_modified.into() });
            async move { Ok(file) }
        });
        files.boxed()
    }

    /// Returns the job of a checkpoint's metadata file; `None` if the file is missing or cannot be parsed.
    pub async fn job_of_checkpoint(&self, path: &str) -> Result<Option<JobId>> {
        if let Some(job) = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(Some(*job));
        }
        let job = match self.store.head(&self.file(path)).await {
            Ok(file) => self.read(&file).await?.as_deref().and_then(checkpoint::job),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(job) = job {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.len() >= REMEMBERED {
                jobs.clear();
            }
            jobs.insert(path.to_owned(), job);
        }
        Ok(job)
    }

    /// Returns the location of a checkpoint from its metadata file; `None` if the file is missing or does not name it.
    pub async fn location_of_checkpoint(&self, path: &str) -> Result<Option<String>> {
        match self.store.head(&self.file(path)).await {
            Ok(file) => Ok(self.read(&file).await?.as_deref().and_then(checkpoint::location)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns for each of these files whether it is there, by the storage's own answer. An empty file is not: Flink
    /// writes none, and cannot read one.
    ///
    /// # Errors
    /// When the storage does not answer for one of them; nothing is known then.
    pub async fn are_there(&self, files: impl IntoIterator<Item = String>) -> Result<BTreeMap<String, bool>> {
        let answers = stream::iter(files).map(|file| async move {
            let is_there = match self.store.head(&self.file(&file)).await {
                Ok(found) => found.size > 0,
                Err(Error::NotFound { .. }) => false,
                Err(error) => return Err(error),
            };
            Ok((file, is_there))
        });
        answers.buffer_unordered(PARALLEL).try_collect().await
    }

    /// Looks up files of the cluster's directory, each by itself; `None` for one that is missing.
    pub async fn look_up(&self, files: impl IntoIterator<Item = String>) -> Vec<(String, Result<Option<File>>)> {
        let answers = stream::iter(files).map(|path| async move {
            let found = match self.store.head(&self.file(&path)).await {
                Ok(found) => {
                    Ok(Some(File { path: path.clone(), bytes: found.size, written: found.last_modified.into() }))
                }
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            };
            (path, found)
        });
        answers.buffered(PARALLEL).collect().await
    }

    /// Returns the blobs of a job that its graph or plan names: its jars. `None` if the plan is missing or too large.
    pub async fn jars(&self, job: JobId, plan: &str) -> Result<Option<Vec<String>>> {
        let plan = match self.store.head(&self.file(plan)).await {
            Ok(file) => self.read(&file).await?,
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(plan) = plan else { return Ok(None) };
        let (directory, blobs) = (self.directory(), self.file(&format!("blob/job_{job}")));
        let blobs: Vec<ObjectMeta> = self.store.list(Some(&blobs)).try_collect().await?;
        let mut jars: Vec<String> = blobs.iter().filter_map(|blob| below(&directory, blob)).collect();
        jars.retain(|path| ha_file::is_named_in(&plan, path));
        jars.sort();
        Ok(Some(jars))
    }

    /// Removes a file of the cluster's directory; a missing one is no error.
    pub async fn remove_file(&self, path: &str) -> Result<()> {
        self.delete(&self.file(path)).await
    }

    /// Returns the marks of all clusters that use this directory or have used it.
    pub async fn marks(&self) -> Result<Vec<MarkFile>> {
        let directory = self.file(MARKS);
        let marks = self.store.list(Some(&directory)).try_filter_map(move |file| {
            let mark = below(&directory, &file).map(|owner| MarkFile { owner, beat: file.last_modified.into() });
            async move { Ok(mark) }
        });
        marks.try_collect().await
    }

    /// Writes the owner's mark, or refreshes it.
    pub async fn sign(&self, owner: &str, mark: String) -> Result<()> {
        self.store.put(&self.mark_of(owner), mark.into()).await.map(drop)
    }

    /// Returns the text of the owner's mark; `None` if there is none.
    pub async fn mark(&self, owner: &str) -> Result<Option<String>> {
        let read = async { self.store.get(&self.mark_of(owner)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the owner's mark. The caller does so after it has removed everything else.
    pub async fn unclaim(&self, owner: &str) -> Result<()> {
        self.delete(&self.mark_of(owner)).await
    }

    /// Returns the directory's mark, if this owner's is the only one.
    pub async fn mark_of_only(&self, owner: &str) -> Result<Option<MarkFile>> {
        let marks = self.marks().await?;
        Ok(if marks.iter().all(|mark| mark.owner == owner) { marks.into_iter().next() } else { None })
    }

    /// Returns the URI of an owner's mark, for display.
    pub fn uri_of_mark(&self, owner: &str) -> String {
        format!("{}/{}/{MARKS}/{owner}", self.uri, self.cluster)
    }

    fn mark_of(&self, owner: &str) -> Path {
        self.file(MARKS).join(owner)
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Returns the content of a file. `None` if Flink has renamed or removed it since it was listed, or if it is too
    /// long; nothing is known about it then.
    async fn read(&self, file: &ObjectMeta) -> Result<Option<Vec<u8>>> {
        if file.size > FILE_LIMIT {
            return Ok(None);
        }
        let read = async { self.store.get(&file.location).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn store(&self, store: Store) -> Path {
        self.root.clone().join(store.directory()).join(self.cluster.as_str())
    }

    fn directory(&self) -> Path {
        self.root.clone().join(self.cluster.as_str())
    }

    fn file(&self, path: &str) -> Path {
        path.split('/').fold(self.directory(), |directory, part| directory.join(part))
    }
}

/// Returns the directories that Flink creates for one cluster in `file:` storage. In a bucket, a directory is only a
/// part of a name.
pub fn owned_directories(storage_dir: &str, cluster: &str) -> impl Iterator<Item = PathBuf> {
    let root = local_path(storage_dir);
    let directories = move |root: PathBuf| {
        let stores = Store::ALL.map(|store| root.join(store.directory()).join(cluster));
        stores.into_iter().chain([root.join(cluster)]).collect::<Vec<_>>()
    };
    root.into_iter().flat_map(directories)
}

/// Returns the directory that a URI names on a volume; `None` for one in a bucket.
fn local_path(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file:").map_or(uri, |path| path.strip_prefix("//").unwrap_or(path));
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Returns a file's path below a directory; `None` for other files and for the directory itself.
fn below(directory: &Path, file: &ObjectMeta) -> Option<String> {
    let parts: Vec<String> = file.location.prefix_match(directory)?.map(|part| part.as_ref().to_owned()).collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_names_its_owner_and_a_new_directory_has_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = Storage::new(&directory.path().display().to_string(), "ns.demo", &FlinkConfiguration::new())
            .expect("file storage");
        assert_eq!(storage.marks().await.expect("no mark"), []);
        assert!(storage.files().try_collect::<Vec<_>>().await.expect("files").is_empty());
        assert_eq!(storage.mark("one").await.expect("no mark"), None);
        storage.sign("one", "text".to_owned()).await.expect("signed");
        assert_eq!(storage.mark("one").await.expect("a mark").as_deref(), Some("text"));
        assert!(storage.mark_of_only("one").await.expect("marks").is_some());
        storage.sign("two", String::new()).await.expect("signed");
        assert_eq!(storage.mark_of_only("one").await.expect("marks"), None, "two use it");
        assert_eq!(storage.marks().await.expect("marks").len(), 2);
        assert!(storage.entries().await.expect("entries").is_empty());
        let blob = directory.path().join("ns.demo/blob/job_1");
        std::fs::create_dir_all(&blob).expect("a directory");
        std::fs::write(blob.join("blob_p-1"), "12345").expect("a file");
        let files: Vec<File> = storage.files().try_collect().await.expect("files");
        assert_eq!(
            files.iter().map(|file| (file.path.as_str(), file.bytes)).collect::<Vec<_>>(),
            [("blob/job_1/blob_p-1", 5)]
        );
        let names = ["blob/job_1/blob_p-1", "none", "../ns.demo/blob/job_1/blob_p-1"].map(str::to_owned);
        let found: Vec<Option<u64>> =
            storage.look_up(names).await.into_iter().map(|(_, file)| Some(file.ok()??.bytes)).collect();
        assert_eq!(found, [Some(5), None, None], "a name leads nowhere else");
        storage.remove_file(&files[0].path).await.expect("removed");
        storage.remove_file(&files[0].path).await.expect("gone already");
    }

    #[tokio::test]
    async fn a_file_is_there_if_it_holds_something_and_a_jar_is_a_blob_that_the_plan_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = Storage::new(&directory.path().display().to_string(), "ns.demo", &FlinkConfiguration::new())
            .expect("file storage");
        let (job, cluster) = (JobId::from_number(1), directory.path().join("ns.demo"));
        let blobs = cluster.join(format!("blob/job_{job}"));
        std::fs::create_dir_all(&blobs).expect("a directory");
        let [jar, other] = ["61", "62"].map(|byte| format!("blob_p-{}-00", byte.repeat(20)));
        for (path, content) in [
            (cluster.join("submittedExecutionPlanab"), "x".to_owned() + &"a".repeat(20)),
            (cluster.join("completedCheckpointab"), String::new()),
            (blobs.join(&jar), "jar".to_owned()),
            (blobs.join(&other), "part of a message".to_owned()),
        ] {
            std::fs::write(path, content).expect("a file");
        }
        let asked = ["submittedExecutionPlanab", "completedCheckpointab", "completedCheckpointcd"].map(str::to_owned);
        let answers = storage.are_there(asked).await.expect("answers");
        assert_eq!(answers.into_values().collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(
            storage.jars(job, "submittedExecutionPlanab").await.expect("jars"),
            Some(vec![format!("blob/job_{job}/{jar}")])
        );
        assert_eq!(storage.jars(job, "submittedExecutionPlancd").await.expect("no plan"), None);
        // What is no directory cannot say that a file in it is missing.
        std::fs::remove_dir_all(&cluster).expect("removed");
        std::fs::write(&cluster, "a file").expect("a file");
        assert!(storage.are_there(["completedCheckpointab".to_owned()]).await.is_err());
    }
}
