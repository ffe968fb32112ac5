//! The collection of znodes and files, cut at each of its steps: on a real quorum, a real S3 server and a real API
//! server, with the gateway's own code between them. Only the JVMs are missing: what Flink has written lies there, and
//! a session holds the latch.
//!
//! EVERY (3): every so manyth write is one at which something happens; 1 takes a minute or two.

mod leader;
mod scene;
mod seam;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::report::number;
use crate::support::{eventually, say, seconds};
use futures::StreamExt;
use leader::Leader;
use scene::{Rig, Scene, UNKNOWN};
use seam::{Cut, Gate};
use tokio::runtime::Handle;

/// Long enough for a gateway that would go on to be seen going on: it scans four times a second.
const WATCHED: Duration = Duration::from_millis(400);

/// So many clusters at a time: they wait more than they work.
const AT_A_TIME: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn the_collection_is_cut_at_every_write() {
    let rig = Arc::new(Rig::start().await);
    let begin = Instant::now();
    let tell = |what: &str| say(format!("{:.1} s: {what}", begin.elapsed().as_secs_f32()));
    let writes = uncut(&rig).await;
    tell(&format!("{} writes from the term to the end of the sweep", writes.len()));
    for kind in ["PATCH", "PUT", "POST", "create", "multi"] {
        assert!(writes.iter().any(|write| write.starts_with(kind)), "no {kind}: {writes:#?}");
    }
    let numbers = || (1..=writes.len()).step_by(number("EVERY", 3));
    let cuts = numbers().flat_map(|number| [(number, Cut::Before), (number, Cut::After)]);
    let of = || Arc::clone(&rig);
    together(cuts.map(|(number, cut)| (of(), number, cut)).map(|(rig, number, cut)| move || crash(rig, number, cut)))
        .await;
    tell("a crash before and after each write");
    together((0..4).map(|walk| (of(), walk)).map(|(rig, walk)| move || crashes(rig, walk))).await;
    tell("several crashes one after another");
    // With the first write a leader takes its term: without it there is no leader yet.
    together(numbers().skip(1).map(|number| (of(), number)).map(|(rig, number)| move || without_latch(rig, number)))
        .await;
    tell("the latch lost at each write, and nobody has told");
    together(numbers().skip(1).map(|number| (of(), number)).map(|(rig, number)| move || stopped(rig, number))).await;
    tell("the latch lost at each write");
    let transactions = (1..).zip(writes.clone()).filter(|(_, write)| write.starts_with("multi"));
    let all = transactions.flat_map(|(number, write)| MEANWHILE.map(|meanwhile| (number, write.clone(), meanwhile)));
    let written: Arc<Mutex<Vec<Meanwhile>>> = Arc::default();
    together(all.map(|one| (of(), Arc::clone(&written), one)).map(|(rig, done, (number, write, meanwhile))| {
        move || async move {
            if written_meanwhile(rig, number, write, meanwhile).await {
                done.lock().unwrap().push(meanwhile);
            }
        }
    }))
    .await;
    for meanwhile in MEANWHILE {
        let times = written.lock().unwrap().iter().filter(|done| **done == meanwhile).count();
        assert!(times > 0, "{meanwhile:?}: no transaction is concerned");
        tell(&format!("another JobManager writes before a transaction: {meanwhile:?}, {times} times"));
    }
}

/// A JobManager that has lost the latch still leads a run in whose place another one began: the run is noted as
/// collected only when its address is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_run_is_not_noted_as_collected_while_it_is_led() {
    let rig = Rig::start().await;
    let scene = Scene::lay(&rig, "superseded".to_owned()).await;
    let run = scene::id(UNKNOWN);
    scene.supersede(&rig, UNKNOWN).await;
    scene.lead_job(UNKNOWN).await;
    let leader = Leader::elect(&rig, &scene, Gate::new(None)).await;
    leader.take_term().await;
    let of_run = async || {
        let found = scene.znodes().await.into_keys();
        found.filter(|path| path.contains(&run)).collect::<Vec<_>>()
    };
    let noted = async || rig.jobs(&scene).await.into_iter().any(|job| job.id == *run && job.collected.is_some());
    let checks = async {
        let path = format!("/jobs/{run}");
        let removed = async || (!of_run().await.iter().any(|found| found.ends_with(&path))).then_some(());
        eventually("the run's own znode gone", seconds(20), removed).await;
        // Longer than two scans.
        tokio::time::sleep(2 * WATCHED).await;
        assert!(!noted().await, "noted as collected while a JobManager leads it: {:?}", of_run().await);
        scene.close_job(UNKNOWN).await;
        eventually("noted as collected", seconds(20), async || noted().await.then_some(())).await;
        assert_eq!(of_run().await, Vec::<String>::new());
    };
    tokio::select! {
        () = leader.collect() => panic!("the collector ended"),
        () = checks => {}
    }
}

/// Some at a time, each on a thread of its own, to the end of all.
async fn together<F: Future<Output = ()>>(all: impl Iterator<Item = impl FnOnce() -> F + Send + 'static>) {
    let on_its_thread = |round| tokio::task::spawn_blocking(move || Handle::current().block_on(start(round)));
    let mut running = futures::stream::iter(all.map(on_its_thread)).buffer_unordered(AT_A_TIME);
    while let Some(done) = running.next().await {
        done.expect("a round of the test");
    }
}

fn start<F>(round: impl FnOnce() -> F) -> F {
    round()
}

/// Nothing is cut. Returns all writes.
async fn uncut(rig: &Rig) -> Vec<String> {
    let scene = Scene::lay(rig, "uncut".to_owned()).await;
    let before = scene.snapshot(rig).await;
    let leader = Leader::elect(rig, &scene, Gate::new(None)).await;
    leader.do_all(&scene, rig).await;
    assert_eq!(scene.snapshot(rig).await, Scene::without_garbage(&before));
    assert!(Scene::without_garbage(&before).len() > 80, "what lives is more than that: {before:#?}");
    leader.gate.writes()
}

/// A gateway and its JVM die at this write. The next leader finishes, and nothing that lives is touched.
async fn crash(rig: Arc<Rig>, number: usize, cut: Cut) {
    let what = format!("crash-{cut:?}-{number}").to_lowercase();
    let scene = Scene::lay(&rig, what.clone()).await;
    let before = scene.snapshot(&rig).await;
    assert!(die_at(&rig, &scene, number, cut).await, "{what}: it was not reached");
    finish(&rig, &scene, &what).await;
    assert_eq!(scene.snapshot(&rig).await, Scene::without_garbage(&before), "{what}");
}

/// Leaders that die one after another, until one comes to the end.
async fn crashes(rig: Arc<Rig>, walk: u64) {
    let scene = Scene::lay(&rig, format!("walk-{walk}")).await;
    let before = scene.snapshot(&rig).await;
    let (mut crashes, mut random) = (0, fastrand::Rng::with_seed(walk));
    while crashes < 12 {
        let cut = if random.bool() { Cut::Before } else { Cut::After };
        if !die_at(&rig, &scene, random.usize(1..14), cut).await {
            break;
        }
        crashes += 1;
    }
    finish(&rig, &scene, "many crashes").await;
    assert_eq!(scene.snapshot(&rig).await, Scene::without_garbage(&before), "walk {walk}, {crashes} crashes");
}

/// True if the leader has come to this write and died; false if it has come to the end before.
async fn die_at(rig: &Rig, scene: &Scene, number: usize, cut: Cut) -> bool {
    let leader = Leader::elect(rig, scene, Gate::new(Some((number, cut)))).await;
    let died = tokio::select! {
        () = leader.do_all(scene, rig) => false,
        () = leader.gate.reached() => true,
    };
    leader.lose_latch(rig).await;
    died
}

async fn finish(rig: &Rig, scene: &Scene, what: &str) {
    let next = Leader::elect(rig, scene, Gate::new(None)).await;
    let finished = tokio::time::timeout(seconds(90), next.do_all(scene, rig)).await;
    assert!(finished.is_ok(), "the next leader does not come to an end after {what}");
}

/// The latch is gone, and the gateway has not heard of it, not even while the next leader does its work: not a znode
/// changes by what it still does, the ledger is the next one's, and files that live stay.
async fn without_latch(rig: Arc<Rig>, number: usize) {
    let rig = &*rig;
    let scene = Scene::lay(rig, format!("late-{number}")).await;
    let before = scene.snapshot(rig).await;
    let old = Leader::elect(rig, &scene, Gate::new(Some((number, Cut::Before)))).await;
    let mut works = Box::pin(async {
        old.do_all(&scene, rig).await;
        std::future::pending::<()>().await
    });
    tokio::select! {
        () = &mut works => {}
        () = old.gate.reached() => {}
    }
    old.lose_latch(rig).await;
    let next = Leader::elect(rig, &scene, Gate::new(None)).await;
    next.take_term().await;
    let (znodes, term) = (scene.znodes().await, rig.term(&scene).await);
    old.gate.open();
    assert!(tokio::time::timeout(WATCHED, &mut works).await.is_err());
    assert_eq!(
        scene.znodes().await,
        znodes,
        "a znode has changed without a latch, from write {number} on: {:#?}",
        old.gate.writes()
    );
    assert_eq!(
        rig.term(&scene).await,
        term,
        "an older term has written the ledger, from write {number} on: {:#?}",
        old.gate.writes()
    );
    tokio::select! {
        () = &mut works => {}
        () = next.do_rest(&scene, rig) => {}
    }
    assert_eq!(
        scene.snapshot(rig).await,
        Scene::without_garbage(&before),
        "a leader without a latch from write {number} on"
    );
}

/// The same, and the gateway hears of it: what is on its way arrives, and nothing follows.
async fn stopped(rig: Arc<Rig>, number: usize) {
    let rig = &*rig;
    let scene = Scene::lay(rig, format!("stopped-{number}")).await;
    let before = scene.snapshot(rig).await;
    let old = Leader::elect(rig, &scene, Gate::new(Some((number, Cut::Before)))).await;
    let mut works = Box::pin(old.do_all(&scene, rig));
    tokio::select! {
        () = &mut works => {}
        () = old.gate.reached() => {}
    }
    old.lose_latch(rig).await;
    old.step_down();
    let (znodes, begun) = (scene.znodes().await, old.gate.writes().len());
    old.gate.open();
    assert!(tokio::time::timeout(WATCHED, &mut works).await.is_err(), "it has come to an end without leading");
    assert_eq!(old.gate.writes().len(), begun, "it goes on: {:#?}", old.gate.writes());
    assert_eq!(scene.znodes().await, znodes, "a znode has changed without a latch");
    drop(works);
    finish(rig, &scene, "a lost latch").await;
    assert_eq!(scene.snapshot(rig).await, Scene::without_garbage(&before), "the latch was lost at write {number}");
}

/// What another JobManager does to a job whose znodes are about to be removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Counts,
    CompletesACheckpoint,
    Leads,
}

const MEANWHILE: [Meanwhile; 3] = [Meanwhile::Counts, Meanwhile::CompletesACheckpoint, Meanwhile::Leads];

/// Another JobManager writes between our read and our transaction: nothing of the transaction is done. False if this
/// transaction has nothing to do with what it writes.
async fn written_meanwhile(rig: Arc<Rig>, number: usize, write: String, meanwhile: Meanwhile) -> bool {
    let rig = &*rig;
    let scene = Scene::lay(rig, format!("{meanwhile:?}-{number}").to_lowercase()).await;
    let of = |tail: &&str| write.contains(&scene::id(tail));
    let tail = ["e001", "e002", "e003"].into_iter().find(of).expect("a job in the transaction");
    let gate = Gate::new(Some((number, Cut::Before)));
    let leader = Leader::elect(rig, &scene, Arc::clone(&gate)).await;
    let mut works = Box::pin(async {
        leader.do_all(&scene, rig).await;
        std::future::pending::<()>().await
    });
    tokio::select! {
        () = &mut works => {}
        () = gate.reached() => {}
    }
    // The second transaction of a job is about the address of its leader, the first about all else.
    let of_leader = write.contains("leader/job-");
    let concerned = match meanwhile {
        Meanwhile::Counts => !of_leader && scene.count(tail).await,
        Meanwhile::CompletesACheckpoint if !of_leader => {
            scene.complete_checkpoint(rig, tail).await;
            true
        }
        Meanwhile::Leads if of_leader => {
            scene.lead_job(tail).await;
            true
        }
        _ => false,
    };
    if !concerned {
        return false;
    }
    let id = scene::id(tail);
    let of_job = async || {
        let mut found = scene.znodes().await;
        found.retain(|path, _| path.contains(&id));
        found
    };
    let written = of_job().await;
    let answered = gate.answered();
    gate.open();
    tokio::select! {
        () = &mut works => {}
        () = gate.answered_since(answered) => {}
    }
    assert_eq!(of_job().await, written, "{meanwhile:?} before {write}: something of the transaction was done");
    if meanwhile == Meanwhile::Leads {
        // Longer than two scans.
        let _ = tokio::time::timeout(2 * WATCHED, &mut works).await;
        assert_eq!(of_job().await, written, "the address of a JobManager that leads was touched");
        let led = rig.jobs(&scene).await.into_iter().find(|job| job.id == *id);
        assert_eq!(led.and_then(|job| job.collected), None, "noted as collected while a JobManager leads it");
        scene.close_job(tail).await;
        tokio::select! {
            () = &mut works => {}
            () = leader.until_collected(&scene, rig) => {}
        }
        return true;
    }
    let _ = tokio::time::timeout(WATCHED, &mut works).await;
    if meanwhile == Meanwhile::CompletesACheckpoint {
        assert_eq!(of_job().await, written, "a job with a pointer that somebody has locked was touched");
        let left = scene.left(rig).await;
        assert!(
            left.iter().any(|path| path.contains("job-result-store") && path.contains(&id)),
            "its result is gone: {left:#?}"
        );
        assert!(
            rig.s3
                .bucket()
                .join(format!("ha/{}/completedCheckpoint00000007{tail}", scene.high_availability_id()))
                .exists()
        );
    } else if meanwhile == Meanwhile::Counts {
        eventually("its znodes gone", seconds(20), async || {
            let _ = tokio::time::timeout(Duration::from_millis(50), &mut works).await;
            of_job().await.is_empty().then_some(())
        })
        .await;
    }
    true
}
