//! What an API server spends its time on: its own metrics of requests, and its own profile of processor time.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use futures::AsyncReadExt;

/// Rows of a table.
const SHOWN: usize = 14;
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");

/// Number of requests and seconds that they took, by verb and resource.
pub type Requests = BTreeMap<String, (f64, f64)>;

/// All requests so far but watches.
pub async fn requests(client: &kube::Client) -> Requests {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let metrics = client.request_text(request).await.expect("the API server's metrics");
    let mut all = Requests::new();
    for line in metrics.lines() {
        let Some((metric, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = metric.split_once('{') else { continue };
        let label = |key: &str| labels.split(key).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let (verb, resource, subresource) = (label(",verb=\""), label(",resource=\""), label(",subresource=\""));
        let value: f64 = value.parse().unwrap_or_default();
        let entry = || format!("{verb} {resource} {subresource}").trim_end().to_owned();
        match name {
            _ if ["WATCH", "CONNECT"].contains(&verb) => {}
            "apiserver_request_duration_seconds_count" => all.entry(entry()).or_default().0 += value,
            "apiserver_request_duration_seconds_sum" => all.entry(entry()).or_default().1 += value,
            _ => {}
        }
    }
    all
}

/// Prints on what most time was spent between two readings.
pub fn print_difference(before: &Requests, after: &Requests) {
    let mut rows: Vec<(&String, f64, f64)> = after
        .iter()
        .map(|(what, (count, time))| {
            let (count_before, time_before) = before.get(what).copied().unwrap_or_default();
            (what, count - count_before, time - time_before)
        })
        .filter(|(_, count, _)| *count > 0.0)
        .collect();
    rows.sort_by(|one, other| other.2.total_cmp(&one.2));
    println!("{:<44} {:>9} {:>10} {:>9}", "requests at the API server", "number", "seconds", "ms each");
    for (what, count, time) in rows.iter().take(SHOWN) {
        println!("{what:<44} {count:>9} {time:>10.1} {:>9.2}", time * 1000.0 / count);
    }
}

/// Takes a profile of processor time, of this length, and prints the functions in which most was spent.
/// `of`: what happens meanwhile, for the file's name.
pub async fn profile(client: kube::Client, length: Duration, of: &str) {
    let path = format!("/debug/pprof/profile?seconds={}", length.as_secs());
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    let mut stream = Box::pin(client.request_stream(request).await.expect("a profile"));
    let mut profile = Vec::new();
    stream.read_to_end(&mut profile).await.expect("a profile");
    let file = format!("{DIRECTORY}/api-server-{of}.pprof");
    std::fs::create_dir_all(DIRECTORY).expect("a directory for the profile");
    std::fs::write(&file, profile).expect("failed to write the profile");
    println!("{file}");
    let top = Command::new("go").args(["tool", "pprof", "-top", "-cum", "-nodecount=90", &file]).output();
    match top {
        Ok(top) => println!("{}", String::from_utf8_lossy(&top.stdout)),
        Err(error) => println!("go tool pprof: {error}"),
    }
}
