//! User code beside a sidecar, in the same pod: what it reads of the other process.

use super::pod::{KEY, PASSWORD, Pod, STORAGE_SECRET, TOKEN};
use super::{Got, Target};

const READ: &str = r#"open(my $file, "<", $ARGV[0]) or die "$!\n"; print <$file>"#;

/// Looks through all memory that a process may write, for a text.
const MEMORY: &str = r#"
my ($pid, $wanted) = @ARGV;
open(my $maps, "<", "/proc/$pid/maps") or die "maps: $!\n";
open(my $memory, "<:raw", "/proc/$pid/mem") or die "mem: $!\n";
while (<$maps>) {
  next unless /^([0-9a-f]+)-([0-9a-f]+) rw/;
  my ($begin, $length) = (hex($1), hex($2) - hex($1));
  next if $length > 64 << 20;
  sysseek($memory, $begin, 0);
  sysread($memory, my $bytes, $length);
  if (defined $bytes && index($bytes, $wanted) >= 0) { print $wanted; exit }
}
print "not found"
"#;

/// ptrace(PTRACE_ATTACH), and leaves the process as it was.
const TRACE: &str = r#"
my $pid = $ARGV[0] + 0;
chomp(my $machine = `uname -m`);
my $ptrace = {x86_64 => 101, aarch64 => 117}->{$machine} or die "unknown machine\n";
syscall($ptrace, 16, $pid, 0, 0) == 0 or die "$!\n";
waitpid($pid, 0);
syscall($ptrace, 17, $pid, 0, 0);
print "attached"
"#;

/// Everything else in /proc that leads into a process.
const FILES: &str = r#"
my $pid = $ARGV[0];
my @opened;
for my $name (qw(exe maps auxv environ pagemap)) {
  open(my $file, "<:raw", "/proc/$pid/$name") or next;
  push @opened, $name if sysread($file, my $bytes, 64);
}
for my $name (qw(fd cwd map_files)) { opendir(my $all, "/proc/$pid/$name") and push @opened, $name }
@opened ? print "opened @opened" : die "none of them\n"
"#;

/// Looks at every process that begins, until one of them shows a file, or until another file says that it is over.
const LURK: &str = r#"
my ($path, $over) = @ARGV;
my %before = map { m{/(\d+)$} => 1 } glob("/proc/[0-9]*");
my %seen;
until (-e $over) {
  opendir(my $all, "/proc");
  for my $pid (grep { /^\d+$/ && !$before{$_} } readdir($all)) {
    $seen{$pid} = 1;
    next unless open(my $file, "<", "/proc/$pid/root$path");
    my $text = join("", <$file>);
    if ($text ne "") { print $text; exit }
  }
}
printf "nothing of %d processes", scalar keys %seen;
"#;

/// Asks the gateway for a hand-over through the socket of the preStop hook.
const HOOK: &str = r#"
use IO::Socket::UNIX;
my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$!\n";
print $socket "hand over\n";
$socket->flush;
print scalar <$socket>
"#;

/// Starts of a process while somebody lurks.
const STARTS: usize = 40;

fn through_root(pod: &Pod, name: &str) -> String {
    format!("/proc/{}/root{}", pod.pid(), pod.mounted(name).display())
}

/// Somebody who looks for the key.
fn lurk(pod: &Pod) -> tokio::task::JoinHandle<String> {
    let (path, over) = (pod.mounted("key").display().to_string(), pod.over().display().to_string());
    tokio::spawn(async move { super::pod::as_user(LURK, &[&path, &over]).await })
}

pub async fn reads_the_peers_key(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(READ, &[&through_root(&pod, "key")]).await, KEY)
}

pub async fn reads_the_gateways_token(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(READ, &[&through_root(&pod, "kubeconfig")]).await, TOKEN)
}

pub async fn reads_the_gateways_environment(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(READ, &[&format!("/proc/{}/environ", pod.pid())]).await, STORAGE_SECRET)
}

pub async fn reads_the_gateways_memory(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(MEMORY, &[&pod.pid(), STORAGE_SECRET]).await, STORAGE_SECRET)
}

pub async fn attaches_a_debugger_to_the_gateway(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(TRACE, &[&pod.pid()]).await, "attached")
}

pub async fn opens_the_gateways_files(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    Got::if_shown(pod.user_code(FILES, &[&pod.pid()]).await, "opened")
}

/// Ends the gateway, as any process of the user may, and looks at the one that is started in its place before that has
/// closed itself.
pub async fn reads_the_key_while_a_gateway_starts(target: Target) -> Got {
    let mut pod = Pod::job_manager(&target.version).await;
    let lurking = lurk(&pod);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for _ in 0..STARTS {
        if lurking.is_finished() {
            break;
        }
        pod.sidecar.restart();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    pod.say_over();
    Got::if_shown(lurking.await.unwrap(), KEY).with(&format!("{STARTS} starts"))
}

/// The preStop hook is a process in the gateway's container too.
pub async fn reads_the_key_while_the_hook_runs(target: Target) -> Got {
    if target.version.former {
        return Got::not_run("its hook is no process");
    }
    let pod = Pod::job_manager(&target.version).await;
    let lurking = lurk(&pod);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for _ in 0..STARTS {
        if lurking.is_finished() {
            break;
        }
        let hook = pod.run_hook();
        assert!(hook.status.success(), "{hook:?}");
    }
    pod.say_over();
    Got::if_shown(lurking.await.unwrap(), KEY).with(&format!("{STARTS} hooks"))
}

/// A hand-over keeps this JobManager out of the election.
pub async fn hands_over_through_the_hooks_socket(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let said = pod.user_code(HOOK, &[&through_root(&pod, "run/gateway.sock")]).await;
    Got::if_shown(said, "ok")
}

/// Command lines are open to everybody. Those of all containers that the operator makes, for a cluster with every
/// credential that it knows.
pub async fn reads_secrets_on_command_lines(target: Target) -> Got {
    let secret = serde_json::json!({ "name": "zk" });
    let spec = serde_json::json!({
        "highAvailability": {
            "provider": "ZooKeeper",
            "zookeeper": { "quorum": "zk:2181", "authentication": secret, "tls": secret },
        },
        "flinkConfiguration": { "s3.access-key": KEY, "s3.secret-key": STORAGE_SECRET },
    });
    let words = target.command_lines(spec).await;
    let shown = words.iter().find(|word| [KEY, STORAGE_SECRET, PASSWORD].iter().any(|secret| word.contains(secret)));
    match shown {
        Some(word) => Got::through(word),
        None => Got::nothing(&format!("no secret in {} words", words.len())),
    }
}

pub async fn reads_the_quorums_password(target: Target) -> Got {
    let pod = Pod::task_manager(&target.version).await;
    Got::if_shown(pod.user_code(READ, &[&format!("/proc/{}/environ", pod.pid())]).await, PASSWORD)
}

pub async fn reads_the_sidecars_memory(target: Target) -> Got {
    let pod = Pod::task_manager(&target.version).await;
    Got::if_shown(pod.user_code(MEMORY, &[&pod.pid(), PASSWORD]).await, PASSWORD)
}
