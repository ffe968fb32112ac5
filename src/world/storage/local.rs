//! Files of a directory on a volume, none of them through a symbolic link.
//!
//! User code writes to the same volume. A link that it leaves there would lead the gateway, and the Job that removes a
//! deleted cluster's files, to what only they can reach: they would list, read and remove that. So every directory
//! below the root is opened on its own and not by its path, and a list leaves out whatever is neither a directory nor a
//! file. The root itself is the user's choice, and may be a link.

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat, unlinkat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::deadline::Deadline;

/// Directories below the root. Flink's layout has three levels.
const DEEPEST: usize = 16;
/// Files that are listed ahead.
const AHEAD: usize = 1_000;
/// Longest file that is read at once, in bytes; a longer one, a user's jar, is read in pieces by whoever wants it.
const AT_ONCE: u64 = 16 << 20;

/// What a sidecar has and no file of a user is: its secrets, its token, and the kernel's own files.
const CLOSED: [&str; 6] = ["/etc/flinkha", "/var/run/secrets", "/run/secrets", "/proc", "/sys", "/dev"];

/// The files below one directory, or one file.
#[derive(Clone, Debug)]
pub struct LocalFiles(Arc<Root>);

#[derive(Debug)]
struct Root {
    /// What the user has named.
    path: Path,
    /// Writes files, which it does in one step.
    writer: LocalFileSystem,
    deadline: Deadline,
}

impl LocalFiles {
    /// Makes no request.
    pub fn new(path: Path) -> Self {
        Self(Arc::new(Root { path, writer: LocalFileSystem::new(), deadline: Deadline::default() }))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl FnOnce(&Root, &Path) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (root, place) = (Arc::clone(&self.0), location.clone());
        self.0.deadline.thread(location, move || work(&root, &place)).await
    }
}

impl Root {
    fn local(&self) -> PathBuf {
        PathBuf::from(format!("/{}", self.path))
    }

    /// Opens the directory of a file; returns it with the file's name.
    fn parent(&self, location: &Path) -> Result<(OwnedFd, String)> {
        let failed = |errno| failed(location, errno);
        let mut parts: Vec<String> =
            location.prefix_match(&self.path).into_iter().flatten().map(|part| part.as_ref().to_owned()).collect();
        let name = parts.pop().ok_or_else(|| failed(Errno::ISDIR))?;
        let mut directory =
            open(self.local(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        for part in parts {
            directory = directory_in(&directory, &part).map_err(failed)?;
        }
        Ok((directory, name))
    }

    fn open(&self, location: &Path) -> Result<(File, ObjectMeta)> {
        // Without NONBLOCK a named pipe would stop the gateway.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = if *location == self.path {
            let file = open(self.local(), flags, Mode::empty()).map_err(|errno| failed(location, errno))?;
            refuse_closed(&file, location)?;
            file
        } else {
            let (directory, name) = self.parent(location)?;
            openat(directory, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| failed(location, errno))?
        };
        let file = File::from(file);
        let metadata = file.metadata().map_err(|error| generic(location, error.to_string()))?;
        if !metadata.is_file() {
            return Err(generic(location, "it is not a file".to_owned()));
        }
        let written = metadata.modified().map_err(|error| generic(location, error.to_string()))?;
        Ok((file, described(location.clone(), metadata.len(), written)))
    }

    /// Tells all files below a directory, until nobody wants more.
    fn walk(&self, directory: &Path, tell: &mut impl FnMut(Result<ObjectMeta>) -> bool) {
        let below = directory.prefix_match(&self.path).into_iter().flatten();
        let mut opened = open(self.local(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        for part in below {
            opened = opened.and_then(|opened| directory_in(&opened, part.as_ref()));
        }
        let walked = opened.and_then(|opened| walk(&opened, directory, DEEPEST, tell));
        match walked {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => drop(tell(Err(failed(directory, errno)))),
        }
    }
}

fn directory_in(directory: &OwnedFd, name: &str) -> std::result::Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Returns false when nobody wants more.
fn walk(
    directory: &OwnedFd,
    path: &Path,
    depth: usize,
    tell: &mut impl FnMut(Result<ObjectMeta>) -> bool,
) -> std::result::Result<bool, Errno> {
    let readable = openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        // A name that no object can have is not Flink's; one with `#` and a number is of a file that is being written.
        let staged = |(_, number): (&str, &str)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if [".", ".."].contains(&name) || name.split_once('#').is_some_and(staged) || Path::parse(name).is_err() {
            continue;
        }
        let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It was removed since.
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        let location = path.clone().join(name);
        let more = match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                let since_1970 = std::time::Duration::new(found.st_mtime.max(0) as u64, found.st_mtime_nsec as u32);
                tell(Ok(described(location, found.st_size as u64, SystemTime::UNIX_EPOCH + since_1970)))
            }
            FileType::Directory if depth > 0 => match directory_in(directory, name) {
                Ok(inner) => walk(&inner, &location, depth - 1, tell)?,
                // It was removed or replaced since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => true,
                Err(errno) => return Err(errno),
            },
            kind => {
                tracing::warn!(path = %location, ?kind, "this is neither a file nor a directory, so it is left alone");
                true
            }
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A user's own link may lead anywhere but to what only a sidecar has: the content would become a file of Flink's.
fn refuse_closed(file: impl AsFd, location: &Path) -> Result<()> {
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
        .map_err(|error| generic(location, error.to_string()))?;
    if CLOSED.iter().any(|closed| real.starts_with(closed)) {
        let why = format!("it leads to {}, which is not a file of a volume of yours", real.display());
        return Err(generic(location, why));
    }
    Ok(())
}

fn described(location: Path, size: u64, written: SystemTime) -> ObjectMeta {
    ObjectMeta { location, last_modified: written.into(), size, e_tag: None, version: None }
}

fn failed(location: &Path, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::NotFound { path: location.to_string(), source: Box::new(std::io::Error::from(errno)) },
        Errno::LOOP | Errno::NOTDIR => {
            generic(location, "it is reached through a symbolic link, or through a file".to_owned())
        }
        errno => generic(location, std::io::Error::from(errno).to_string()),
    }
}

fn generic(location: &Path, why: String) -> Error {
    Error::Generic { store: "file", source: format!("/{location}: {why}").into() }
}

impl Display for LocalFiles {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "files of /{}", self.0.path)
    }
}

#[async_trait]
impl ObjectStore for LocalFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.writable(location).await?;
        self.0.deadline.of(location, self.0.writer.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.writable(location).await?;
        self.0.writer.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_for_metadata = options.head;
        let read = move |root: &Root, location: &Path| {
            let (file, meta) = root.open(location)?;
            if is_for_metadata || meta.size > AT_ONCE {
                let path = PathBuf::from(format!("/{location}"));
                return Ok((GetResultPayload::File(file, path), meta));
            }
            let mut content = Vec::new();
            // User code may write to it meanwhile.
            file.take(meta.size).read_to_end(&mut content).map_err(|error| generic(location, error.to_string()))?;
            Ok((GetResultPayload::Stream(futures::stream::iter([Ok(content.into())]).boxed()), meta))
        };
        let (payload, meta) = self.blocking(location, read).await?;
        options.check_preconditions(&meta)?;
        if options.range.is_some() {
            return Err(not_implemented("a part of a file"));
        }
        let range = 0..meta.size;
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let files = self.clone();
        let delete = move |location: Path| {
            let files = files.clone();
            async move {
                let work = |root: &Root, location: &Path| {
                    let (directory, name) = root.parent(location)?;
                    // Of a link that has the file's name, this removes the link.
                    unlinkat(directory, name, AtFlags::empty()).map_err(|errno| failed(location, errno))
                };
                files.blocking(&location, work).await.map(|()| location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (root, directory) = (Arc::clone(&self.0), prefix.unwrap_or(&self.0.path).clone());
        let (sender, receiver) = mpsc::channel(AHEAD);
        // It ends with the stream, which nobody reads then.
        let (walker, walked) = (Arc::clone(&root), directory.clone());
        let walk = move || walker.walk(&walked, &mut |found| sender.blocking_send(found).is_ok());
        if let Err(error) = root.deadline.start(&directory, walk) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        let next = |(mut receiver, root, directory): (mpsc::Receiver<_>, Arc<Root>, Path)| async {
            let found = match root.deadline.of(&directory, async { Ok(receiver.recv().await) }).await {
                Ok(found) => found?,
                Err(error) => {
                    receiver.close();
                    Err(error)
                }
            };
            Some((found, (receiver, root, directory)))
        };
        futures::stream::unfold((receiver, root, directory), next).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(not_implemented("a list of one level"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_implemented("a copy"))
    }
}

impl LocalFiles {
    /// A file may be written where no link leads to it. A link that is made in this very moment leads only to a new
    /// file, in a directory that its maker chooses.
    async fn writable(&self, location: &Path) -> Result<()> {
        match self.blocking(location, |root, location| root.parent(location).map(drop)).await {
            // The writer makes the directories.
            Err(Error::NotFound { .. }) => Ok(()),
            found => found,
        }
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "files of a volume".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path as LocalPath;

    use object_store::ObjectStoreExt;

    use super::*;

    fn store(root: &LocalPath) -> (LocalFiles, Path) {
        let path = Path::parse(root.display().to_string().trim_start_matches('/')).expect("a path");
        (LocalFiles::new(path.clone()), path)
    }

    async fn listed(files: &LocalFiles, directory: &Path) -> Vec<String> {
        let found: Vec<ObjectMeta> = files.list(Some(directory)).try_collect().await.expect("a list");
        let mut names: Vec<String> = found.iter().map(|file| file.location.to_string()).collect();
        names.sort();
        names.iter().filter_map(|name| name.strip_prefix(directory.as_ref()).map(str::to_owned)).collect()
    }

    #[tokio::test]
    async fn a_link_below_the_root_leads_nowhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let (root, other) = (directory.path().join("root"), directory.path().join("other"));
        std::fs::create_dir_all(root.join("a/b")).expect("a directory");
        std::fs::create_dir_all(other.join("b")).expect("a directory");
        std::fs::write(root.join("a/b/file"), "ours").expect("a file");
        std::fs::write(other.join("b/file"), "theirs").expect("a file");
        symlink(&other, root.join("linked")).expect("a link");
        symlink(other.join("b/file"), root.join("a/link")).expect("a link");
        symlink("/", root.join("a/b/all")).expect("a link");
        let (files, path) = store(&root);
        assert_eq!(listed(&files, &path).await, ["/a/b/file"]);
        // Nothing is known of what is there, which is another thing than that nothing is there.
        let by_name: Result<Vec<ObjectMeta>> = files.list(Some(&path.clone().join("linked"))).try_collect().await;
        assert!(by_name.expect_err("a link").to_string().contains("symbolic link"));
        for link in ["a/link", "linked/b/file"] {
            let location = link.split('/').fold(path.clone(), |path, part| path.join(part));
            let read = files.get(&location).await.expect_err(link).to_string();
            assert!(read.contains("symbolic link"), "{read}");
        }
        let through = path.clone().join("linked").join("b").join("file");
        assert!(files.delete(&through).await.is_err());
        assert!(files.put(&through, "changed".into()).await.is_err());
        assert_eq!(std::fs::read_to_string(other.join("b/file")).expect("their file"), "theirs");
        // The link itself is a name in our directory.
        files.delete(&path.clone().join("a").join("link")).await.expect("removed");
        assert!(!root.join("a/link").is_symlink() && other.join("b/file").exists());
    }

    #[tokio::test]
    async fn no_more_of_a_file_is_read_than_it_had_when_it_was_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("file"), "12345").expect("a file");
        let (files, path) = store(directory.path());
        let found = files.get(&path.clone().join("file")).await.expect("a file");
        assert_eq!(found.range, 0..5);
        assert_eq!(found.bytes().await.expect("read").as_ref(), b"12345");
        // The kernel says that such a file is empty, whatever can be read from it.
        let (files, path) = store(LocalPath::new("/proc/self"));
        let (file, _) = files.0.open(&path.clone().join("status")).expect("a file");
        assert!(std::io::read_to_string(file).is_ok_and(|text| !text.is_empty()));
        assert!(files.get(&path.join("status")).await.expect("a file").bytes().await.expect("read").is_empty());
    }

    #[tokio::test]
    async fn a_pipe_is_no_file_and_stops_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let (files, path) = store(directory.path());
        assert_eq!(listed(&files, &path).await.len(), 0);
        assert!(files.get(&path.join("pipe")).await.expect_err("a pipe").to_string().contains("not a file"));
    }

    #[tokio::test]
    async fn the_users_own_link_is_followed_except_to_what_a_sidecar_has() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("app-1.jar"), "jar").expect("a file");
        let link = directory.path().join("app.jar");
        symlink("app-1.jar", &link).expect("a link");
        let (jar, path) = store(&link);
        assert_eq!(jar.get(&path).await.expect("read").bytes().await.expect("read").as_ref(), b"jar");
        std::fs::remove_file(&link).expect("removed");
        symlink("/proc/self/status", &link).expect("a link");
        let refused = jar.get(&path).await.expect_err("the kernel's").to_string();
        assert!(refused.contains("/status, which is not a file of a volume of yours"), "{refused}");
    }
}
