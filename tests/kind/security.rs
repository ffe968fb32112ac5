//! User code beside a gateway, in Flink's own container of a real pod: `kubectl exec` runs it as what it is there, the
//! same user in the same process namespace. `make test-security` has the attacks that need no kubelet.

use flinkha::api::names::{FLINK_CONTAINER, GATEWAY_CONTAINER, JOB_MANAGER};
use kube::ResourceExt;

use crate::kit::cluster::restarts;
use crate::kit::cluster::{Cluster, is_ready};
use crate::kit::session::Session;
use crate::support::eventually;
use crate::support::say;
use crate::support::seconds;

/// Finds a process by its name, and prints all of its files that can be opened.
const OPEN: &str = r#"
for process in /proc/[0-9]*; do
  [ "$(cat "$process/comm" 2>/dev/null)" = "$1" ] && break
done
echo "cmdline=$(tr '\0' ' ' < "$process/cmdline" | cut -c 1-40)"
for file in environ maps exe auxv root/etc/flinkha/peers/key root/var/run/secrets/kubernetes.io/serviceaccount/token; do
  head -c 1 "$process/$file" > /dev/null 2>&1 && echo "opened=$file"
done
for directory in fd cwd root map_files; do
  ls "$process/$directory/" > /dev/null 2>&1 && echo "opened=$directory"
done
true"#;

/// Ends the gateway, and looks at every process that begins, until a second after the next gateway has.
const LURK: &str = r#"
sub name { open(my $file, "<", "/proc/$_[0]/comm") or return ""; my $name = <$file> // ""; chomp($name); $name }
my ($gateway) = grep { name($_) eq "flinkha" } map { m{/(\d+)$} } glob("/proc/[0-9]*");
kill("KILL", $gateway) == 1 or die "cannot end it: $!\n";
my ($end, $begun) = (time + 60, 0);
while (time < $end) {
  opendir(my $all, "/proc");
  for my $pid (grep { /^\d+$/ && $_ > $gateway && $_ != $$ } readdir($all)) {
    print "key\n" if open(my $key, "<", "/proc/$pid/root/etc/flinkha/peers/key");
    if (open(my $file, "<", "/proc/$pid/environ")) { print "environment\n" if join("", <$file>) =~ /POD_UID=/ }
    ($begun, $end) = ($pid, time + 2) if !$begun && name($pid) eq "flinkha";
  }
}
print "begun=$begun\n";"#;

/// The control: of the JVM, which the gateway must look at.
const OF_THE_JVM: [&str; 4] = ["environ", "maps", "exe", "fd"];

fn user_code(cluster: &Cluster, pod: &str, command: &[&str]) -> String {
    let exec = ["exec", pod, "--container", FLINK_CONTAINER, "--"];
    cluster.namespace.kubectl(&[exec.as_slice(), command].concat())
}

fn opened(printed: &str) -> Vec<&str> {
    printed.lines().filter_map(|line| line.strip_prefix("opened=")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_code_beside_a_gateway_reads_nothing_of_it_and_can_only_end_it() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/security"], 2).await;
    let leader = cluster.leader().await.unwrap().name_any();
    let of_jvm = user_code(cluster, &leader, &["sh", "-c", OPEN, "sh", "java"]);
    assert!(OF_THE_JVM.iter().all(|file| opened(&of_jvm).contains(file)), "the script sees what it may see: {of_jvm}");
    let of_gateway = user_code(cluster, &leader, &["sh", "-c", OPEN, "sh", "flinkha"]);
    say(of_gateway.replace('\n', ", "));
    assert!(of_gateway.starts_with("cmdline=/flinkha gateway"), "{of_gateway}");
    assert_eq!(opened(&of_gateway), Vec::<&str>::new());

    // Ended by user code, it is started again, and shows nothing in its first moments either. The job goes on.
    let before = cluster.leading_rest().await.checkpoints(&job).await.unwrap();
    let ended = restarts(&cluster.pods_api().get(&leader).await.unwrap(), GATEWAY_CONTAINER);
    let seen = user_code(cluster, &leader, &["perl", "-e", LURK]);
    say(seen.replace('\n', ", "));
    let begun = seen.strip_prefix("begun=").and_then(|begun| begun.trim().parse::<u32>().ok());
    assert!(begun.is_some_and(|begun| begun > 0), "a gateway begins, and shows nothing: {seen}");
    let ready = async || {
        let pod = cluster.pods(JOB_MANAGER).await.into_iter().find(|pod| pod.name_any() == leader)?;
        (restarts(&pod, GATEWAY_CONTAINER) > ended && is_ready(&pod)).then_some(())
    };
    eventually("the gateway again, and Ready", seconds(90), ready).await;
    assert_eq!(cluster.leader().await.unwrap().name_any(), leader, "another leads because a gateway was ended once");
    let goes_on = async || {
        let now = cluster.leading_rest().await.checkpoints(&job).await.ok()?;
        assert_eq!(now.restored, before.restored, "the job was restarted");
        (now.completed > before.completed).then_some(())
    };
    eventually("a checkpoint afterwards", seconds(60), goes_on).await;
    cluster.cancel(&job).await;
    // The next gateway that ends in this pod would wait, and lose the leadership.
    cluster.replace(&leader).await;
}
