//! The state of one cluster on one screen.

use jiff::{SignedDuration, Timestamp};

use super::amount::{age, bytes, moment};
use super::candidates::age_of;
use super::cluster::{ApplicationReport, ClusterReport, LeaderReport};
use super::failover::{restored, restored_from, told};
use super::problems::ProblemReport;
use super::table::{Cell, Table, Tone};
use crate::api::status::{Failover, FailoverEntry, HaDataStatus, JobStatus};

/// Jobs that run and that have ended; more would take the screen.
const SHOWN_JOBS: usize = 15;
const SHOWN_ENDED_JOBS: usize = 5;
/// Changes of leader, and jobs of the last one; `history` shows all.
const SHOWN_FAILOVERS: usize = 3;
const SHOWN_RESTORED: usize = 3;
/// After this time nobody records any more where jobs went on.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Lines with labels, tables and headings.
struct Screen {
    now: Timestamp,
    has_colours: bool,
    lines: Vec<String>,
}

/// Width of the labels.
const LABEL: usize = 16;

/// Returns the report as lines for a terminal.
pub fn screen(report: &ClusterReport, now: Timestamp, has_colours: bool) -> String {
    let mut screen = Screen { now, has_colours, lines: Vec::new() };
    screen.head(report);
    screen.candidates(report);
    screen.jobs(report);
    screen.in_progress(&report.in_progress);
    screen.problems(&report.problems);
    for (what, why) in &report.not_known {
        screen.line("Not known", &[Cell::new(format!("{what}: {why}"), Tone::Busy)]);
    }
    screen.lines.join("\n") + "\n"
}

impl Screen {
    /// A line with a label before it.
    fn line(&mut self, label: &str, cells: &[Cell]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell.painted(self.has_colours)).collect();
        self.lines.push(format!("{:<LABEL$}{}", format!("{label}:"), cells.join("")));
    }

    fn table(&mut self, table: &Table) {
        self.lines.push(String::new());
        self.lines.extend(table.lines("", self.has_colours));
    }

    fn moment(&self, at: Option<&str>) -> Option<String> {
        at?.parse().ok().map(|at| moment(at, self.now))
    }

    fn head(&mut self, report: &ClusterReport) {
        let what = format!("{} cluster, {}, provider {}", report.mode, report.image, report.provider);
        self.line("Cluster", &[format!("{}/{}, {what}", report.namespace, report.name).into()]);
        let ready = match &report.ready {
            Some(ready) if ready.status == "True" => Cell::new(yes(&ready.reason), Tone::Good),
            Some(ready) => Cell::new(format!("no: {}", ready.reason), Tone::Bad),
            None => Cell::new("not known: no operator has reported about this resource yet", Tone::Busy),
        };
        self.line("Ready", &[ready]);
        self.leader(report);
        self.failovers(report);
        if !report.task_managers.is_empty() {
            self.line("TaskManagers", &[format!("{} ready", report.task_managers).into()]);
        }
        if let Some(application) = &report.application {
            self.application(application);
        }
        if let Some(ha_data) = &report.ha_data {
            self.ha_data(ha_data);
        }
        if let Some(operator) = &report.operator {
            let renewed = self.moment(operator.renewed.as_deref()).map(|at| format!(", renewed {at}"));
            let text = format!("{} holds Lease {}{}", operator.pod, operator.lease, renewed.unwrap_or_default());
            let is_elected = !operator.pod.is_empty();
            let none = format!("nobody holds Lease {}", operator.lease);
            self.line("Operator", &[if is_elected { text.into() } else { Cell::new(none, Tone::Bad) }]);
        }
    }

    fn leader(&mut self, report: &ClusterReport) {
        let Some(LeaderReport { pod, term, granted, since, renewed }) = &report.leader else {
            let is_at_rest = report.ready.as_ref().is_some_and(|ready| ready.status == "True");
            let tone = if is_at_rest { Tone::Plain } else { Tone::Bad };
            return self.line("Leader", &[Cell::new("none", tone)]);
        };
        let since = self.moment(since.as_deref()).map(|at| format!(" since {at}")).unwrap_or_default();
        let renewed = renewed.as_ref().and_then(|at| at.parse().ok()).map(|at| age(at, self.now));
        let renewed = renewed.map(|ago| format!(", Lease renewed {ago} ago")).unwrap_or_default();
        let (tone, taking_over) = if *granted { (Tone::Good, "") } else { (Tone::Busy, ", is taking over") };
        let rest = format!(" in term {term}{since}{taking_over}{renewed}");
        self.line("Leader", &[Cell::new(pod, tone), Cell::from(rest).after_space()]);
    }

    /// The last few changes of leader; one line for resources of which only the last is known.
    fn failovers(&mut self, report: &ClusterReport) {
        for (index, change) in report.failovers.iter().take(SHOWN_FAILOVERS).enumerate() {
            let at = change.at.as_ref().map(|at| format!("{}: ", moment(at.0, self.now))).unwrap_or_default();
            let label = if index == 0 { "Last failover" } else { "Before" };
            self.line(label, &[format!("{at}{}", told(change)).into()]);
            if index == 0 {
                self.restored(change, &report.jobs);
            }
        }
        if let (Some(Failover { from, to, why, .. }), true) = (&report.last_failover, report.failovers.is_empty()) {
            self.line("Last failover", &[format!("from {from} to {to}, {why}").into()]);
        }
    }

    /// Where jobs went on after the last change of leader.
    fn restored(&mut self, change: &FailoverEntry, jobs: &[JobStatus]) {
        let mut told = restored(change, jobs);
        let more = told.len().saturating_sub(SHOWN_RESTORED);
        told.truncate(SHOWN_RESTORED);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        let is_recent = change.at.as_ref().is_some_and(|at| self.now.duration_since(at.0) < RECORDED_WITHIN);
        let has_jobs = jobs.iter().any(|job| job.ended.is_none());
        if !told.is_empty() {
            self.line("Afterwards", &[told.join("; ").into()]);
        } else if change.running_millis.is_none() && is_recent && has_jobs {
            let text = "from which checkpoints jobs go on is recorded some seconds after all of them run";
            self.line("Afterwards", &[Cell::new(text, Tone::Busy)]);
        }
    }

    fn application(&mut self, application: &ApplicationReport) {
        let tone = match application.phase.as_str() {
            "Running" => Tone::Good,
            "Suspended" | "Ended" => Tone::Plain,
            "Halted" => Tone::Bad,
            _ => Tone::Busy,
        };
        let since = self.moment(application.since.as_deref()).map(|at| format!("since {at}, ")).unwrap_or_default();
        let state = match application.job_state.as_str() {
            "" => String::new(),
            state => format!(", Flink says {state}"),
        };
        let rest = format!("{since}job {}{state}", application.job_id);
        self.line("Application", &[Cell::new(&application.phase, tone), Cell::from(rest).after_space()]);
        if let Some(error) = &application.error {
            self.line("", &[Cell::new(error, Tone::Bad)]);
        }
        if let Some(upgrade) = &application.last_upgrade {
            let at = upgrade.at.as_ref().map(|at| moment(at.0, self.now)).unwrap_or_default();
            let took =
                upgrade.milliseconds.map(|milliseconds| format!(", all tasks ran again after {milliseconds} ms"));
            let why = upgrade.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let tone = match upgrade.result.as_str() {
                "Succeeded" => Tone::Plain,
                "InProgress" => Tone::Busy,
                _ => Tone::Bad,
            };
            let rest = format!("{} at {at}{}{why}", upgrade.mode, took.unwrap_or_default());
            self.line("Last upgrade", &[Cell::new(&upgrade.result, tone), Cell::from(rest).after_space()]);
        }
        if let Some(path) = &application.last_savepoint {
            self.line("Last savepoint", &[path.as_str().into()]);
        }
    }

    fn ha_data(&mut self, ha_data: &HaDataStatus) {
        let tone = match ha_data.state.as_str() {
            "Collectable" => Tone::Good,
            "Settling" => Tone::Busy,
            _ => Tone::Bad,
        };
        let mut cells = vec![Cell::new(&ha_data.state, tone)];
        if !ha_data.message.is_empty() {
            cells.push(format!(": {}", ha_data.message).into());
        }
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        if let Some(size) = &ha_data.largest_config_map {
            let tone = if size.per_cent >= 50 { Tone::Bad } else { Tone::Plain };
            let text = format!("; largest ConfigMap {} ({} % of its limit)", bytes(number(size.bytes)), size.per_cent);
            cells.push(Cell::new(text, tone));
        }
        if let Some(orphans) = &ha_data.orphans {
            let sizes = format!("; orphans: {} files, {}", orphans.files, bytes(number(orphans.bytes)));
            let tone = if orphans.files > 0 { Tone::Busy } else { Tone::Plain };
            cells.push(Cell::new(sizes, tone));
        }
        self.line("HA data", &cells);
    }

    fn candidates(&mut self, report: &ClusterReport) {
        let headings = ["JOBMANAGER", "ROLE", "READY", "PROMISES", "RESTARTS", "AGE", "NODE", "WHY"];
        let mut table = Table::new(&headings);
        for candidate in &report.candidates {
            let promises = candidate.promises.map(|promises| match promises {
                true => Cell::new("yes", Tone::Good),
                false => Cell::new("no", Tone::Bad),
            });
            let ready = if candidate.ready { Cell::new("yes", Tone::Good) } else { Cell::new("no", Tone::Bad) };
            table.row(vec![
                candidate.pod.as_str().into(),
                candidate.role.into(),
                ready,
                promises.unwrap_or_else(|| Cell::or_dash(None::<&str>)),
                candidate.restarts.to_string().into(),
                Cell::or_dash(age_of(candidate, self.now)),
                Cell::or_dash(candidate.node.as_ref()),
                candidate.why.as_deref().unwrap_or_default().into(),
            ]);
        }
        if !report.candidates.is_empty() {
            self.table(&table);
        }
    }

    fn jobs(&mut self, report: &ClusterReport) {
        let jobs = &report.jobs;
        let mut table = Table::new(&["JOB", "ID", "STATE", "SINCE", "CHECKPOINT", "COMPLETED"]);
        let running = jobs.iter().filter(|job| job.ended.is_none());
        let mut ended: Vec<&JobStatus> = jobs.iter().filter(|job| job.ended.is_some()).collect();
        ended.sort_by_key(|job| std::cmp::Reverse(job.ended.as_ref().map(|at| at.0)));
        let shown: Vec<&JobStatus> = running.take(SHOWN_JOBS).chain(ended.into_iter().take(SHOWN_ENDED_JOBS)).collect();
        for job in &shown {
            let tone = match job.state.as_str() {
                "Running" => Tone::Good,
                "Failed" | "Unknown" => Tone::Bad,
                _ => Tone::Plain,
            };
            let since = job.ended.as_ref().or(job.started.as_ref()).map(|at| age(at.0, self.now));
            // What is noted may be a minute old, and the job have gone on from a later one.
            let restored = report.failovers.first().and_then(|change| restored_from(change, &job.id));
            let last = job.last_checkpoint.as_ref().filter(|last| restored.is_none_or(|restored| restored <= last.id));
            let completed = last.and_then(|last| last.completed.as_ref());
            let completed = completed.map(|at| format!("{} ago", age(at.0, self.now)));
            let number = last.map(|last| last.id).or(restored).map(|number| number.to_string());
            table.row(vec![
                if job.name.is_empty() { Cell::or_dash(None::<&str>) } else { job.name.as_str().into() },
                job.id.as_str().into(),
                Cell::new(&job.state, tone),
                Cell::or_dash(since),
                number.unwrap_or_default().into(),
                completed.unwrap_or_default().into(),
            ]);
        }
        if shown.is_empty() {
            return;
        }
        self.table(&table);
        if jobs.len() > shown.len() {
            self.lines.push(format!("and {} more (-o yaml shows all)", jobs.len() - shown.len()));
        }
    }

    fn in_progress(&mut self, found: &[String]) {
        if !found.is_empty() {
            self.lines.push(String::new());
        }
        for message in found {
            self.line("In progress", &[Cell::new(message, Tone::Busy)]);
        }
    }

    fn problems(&mut self, problems: &[ProblemReport]) {
        for ProblemReport { conditions, reason, message, since, see, is_expected } in problems {
            self.lines.push(String::new());
            let tone = if *is_expected { Tone::Busy } else { Tone::Bad };
            let title = Cell::new(format!("{}: {reason}", conditions.join(", ")), tone);
            let since = self.moment(since.as_deref()).map(|at| format!("since {at}"));
            let since = Cell::new(since.unwrap_or_default(), Tone::Faint).after_space();
            self.lines.push(format!("{}{}", title.painted(self.has_colours), since.painted(self.has_colours)));
            self.lines.push(format!("  {}", Cell::from(message.as_str()).painted(self.has_colours)));
            self.lines.push(format!("  {}", Cell::new(format!("see {see}"), Tone::Faint).painted(self.has_colours)));
        }
    }
}

fn yes(reason: &str) -> String {
    if reason == "Ready" { "yes".to_owned() } else { format!("yes ({reason})") }
}
