//! A process that never outlives the test: killed when dropped, and by the kernel when the test program dies.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What to run: kept, so that the process can be started again.
#[derive(Clone, Default)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// Standard output and error are appended here.
    pub log: PathBuf,
}

pub struct Process {
    program: Program,
    child: Child,
}

impl Process {
    pub fn start(program: Program) -> Self {
        let child =
            spawn(&program).unwrap_or_else(|error| panic!("failed to start {}: {error}", program.path.display()));
        Self { program, child }
    }

    /// Kills what is left of the process and starts the same program again.
    pub fn restart(&mut self) {
        self.kill();
        *self = Self::start(self.program.clone());
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// KiB, of a line of `/proc/<pid>/status`: `VmRSS` is what it has in memory now, `VmHWM` the most that it has had.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero()))
            .expect("a running process");
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("a field of its status").trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// User and system time so far, in seconds; a tick is a hundredth of a second on Linux.
    pub fn processor_seconds(&self) -> f64 {
        processor_seconds_of(&self.pid().as_raw_nonzero().to_string())
    }

    pub fn signal(&mut self, signal: Signal) {
        // A process that has ended and was waited for has given its number away.
        if self.exit_status().is_none() {
            kill_process(self.pid(), signal).expect("failed to send a signal to our own child");
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("failed to wait for our own child");
    }

    /// Returns when no thread of it runs any more: on a busy machine one may for some milliseconds after the signal.
    pub fn stop(&mut self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            state(stat).is_none_or(|state| "TtZX".contains(state))
        };
        for _ in 0..1000 {
            if std::fs::read_dir(&threads).into_iter().flatten().flatten().all(stopped) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    pub fn cont(&mut self) {
        self.signal(Signal::CONT);
    }

    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("failed to ask for our own child")
    }

    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits for the end of the process; `None` when it is still running after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            match self.exit_status() {
                None if begin.elapsed() < limit => tokio::time::sleep(Duration::from_millis(5)).await,
                status => return status,
            }
        }
    }

    /// All that the process has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.program.log).unwrap_or_default()
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} with the log {}", self.program.path.display(), self.program.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Program) -> io::Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&program.path).args(&program.arguments);
    // Of our own environment only what every program needs: nobody's kubeconfig or proxy gets into a test.
    command
        .env_clear()
        .envs(["PATH", "JAVA_HOME", "TMPDIR"].into_iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
    command.envs(program.environment.iter().cloned());
    // A process group of its own: the kernel wakes stopped processes whose group has lost the shell that started it.
    command.process_group(0);
    let log: File = OpenOptions::new().create(true).append(true).open(&program.log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    from_the_lasting_thread(command)
}

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel counts the death of the *thread* that started a process as the death of its parent, and test threads end
/// with their test. So all processes are started by one thread that stays.
fn from_the_lasting_thread(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            orders.into_iter().for_each(|(mut command, reply)| drop(reply.send(command.spawn())))
        });
        sender
    });
    let (reply, answer) = channel();
    starter.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// Seconds of processor time of a process, or of this one: `self`.
pub fn processor_seconds_of(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a running process");
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}
