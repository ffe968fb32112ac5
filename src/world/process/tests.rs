use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command};

use crate::world::process::*;

fn child() -> (Child, Incarnation) {
    let child = Command::new("sleep").arg("60").spawn().expect("sleep");
    let pid = child.id() as i32;
    let started = Stat::of(pid).expect("/proc").expect("alive").started;
    (child, Incarnation { pid, started })
}

#[test]
fn the_owner_of_a_loopback_connection_is_found_and_is_not_flink_for_asking() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (accepted, peer) = listener.accept().expect("accept");
    let found = owner_of(accepted.local_addr().expect("address"), peer).expect("owner");
    assert!(matches!(&found, Owner::Stranger { process, .. } if process.pid == std::process::id() as i32), "{found:?}");
    drop(client);
}

#[tokio::test]
async fn the_end_of_a_process_is_noticed_and_its_id_is_not_enough_to_be_it() {
    let (mut child, incarnation) = child();
    let later = Incarnation { started: incarnation.started + 1, ..incarnation };
    assert!(Process::open(later).expect("looked at").is_none());
    let watch = tokio::spawn(end_of(incarnation));
    assert!(is_alive(incarnation).await && !watch.is_finished());
    end(incarnation).await;
    watch.await.expect("ended");
    // No parent has reaped it yet; it has ended all the same.
    assert_eq!(Stat::of(incarnation.pid).expect("/proc").map(|stat| stat.has_ended), Some(true));
    assert!(!is_alive(incarnation).await);
    child.wait().expect("wait");
    assert!(!is_alive(incarnation).await);
    end_of(incarnation).await;
}

/// Stands for a kernel that gives no handle: ENOSYS, EPERM, or for a moment EMFILE.
#[tokio::test]
async fn without_a_handle_a_process_is_known_by_its_start_time() {
    let (mut child, incarnation) = child();
    let blind = |incarnation| Process { incarnation, handle: None }.if_alive();
    assert!(blind(Incarnation { started: 1, ..incarnation }).expect("looked at").is_none());
    let process = blind(incarnation).expect("looked at").expect("alive");
    assert!(
        blind(incarnation).expect("looked at").expect("alive").ended().await.is_err(),
        "that it cannot be waited for is no end"
    );
    process.kill().expect("killed");
    child.wait().expect("wait");
    assert!(blind(incarnation).expect("looked at").is_none());
}

#[test]
fn the_end_is_told_from_the_line_in_proc_alone() {
    let line = |state: &str, threads: u64| {
        format!("7 (a ) Z (b) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0")
    };
    let ended = |state, threads| Stat::parse(&line(state, threads)).map(|stat| (stat.started, stat.has_ended));
    assert_eq!(ended("S", 30), Some((4711, false)));
    assert_eq!(ended("Z", 1), Some((4711, true)));
    assert_eq!(ended("Z", 30), Some((4711, false)), "its first thread alone has ended");
    assert_eq!(ended("T", 30), Some((4711, false)), "it stands still");
    assert_eq!(Stat::parse("7 (a"), None);
}

#[test]
fn the_files_that_a_process_has_opened_are_known_by_name_as_long_as_it_lives() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("flink-dist-9.9.9.jar");
    fs::write(&path, "x").expect("a file");
    let file = fs::File::open(&path).expect("the file");
    let mut child = Command::new("sleep").arg("60").stdin(file).spawn().expect("sleep");
    let pid = child.id() as i32;
    let started = Stat::of(pid).expect("/proc").expect("alive").started;
    let incarnation = Incarnation { pid, started };
    assert!(open_files(incarnation).expect("files").contains(&"flink-dist-9.9.9.jar".to_owned()));
    assert!(open_files(Incarnation { started: started + 1, ..incarnation }).is_err(), "another process of this id");
    try_end(incarnation).expect("a signal");
    child.wait().expect("wait");
    assert!(open_files(incarnation).is_err());
}
