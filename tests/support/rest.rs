//! Flink's REST interface. Every call has a short time-out: a JobManager that is losing its leader can hang for ten
//! minutes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use flinkha::api::names::REST_PORT;
use reqwest::{Client, RequestBuilder, multipart};
use serde_json::{Value, json};

use super::pods;
use super::seconds;

#[derive(Clone)]
pub struct Rest {
    base: String,
    client: Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: String,
    pub state: String,
    pub running_tasks: u64,
    pub tasks: u64,
}

impl Job {
    /// RUNNING in the full sense: every task of it.
    pub fn runs(&self) -> bool {
        self.state == "RUNNING" && self.tasks > 0 && self.running_tasks == self.tasks
    }

    /// In a globally terminal state.
    pub fn has_ended(&self) -> bool {
        ["FINISHED", "CANCELED", "FAILED"].contains(&self.state.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// How many completed since this JobManager has the job.
    pub completed: u64,
    pub failed: u64,
    /// The number of the last one that completed.
    pub latest: Option<u64>,
    /// The number of the one that the job was restored from.
    pub restored: Option<u64>,
    /// How often the job was restored by this JobManager.
    pub restores: u64,
}

impl Rest {
    pub fn new(address: Ipv4Addr) -> Self {
        Self::with_timeout(address, seconds(10))
    }

    pub fn with_timeout(address: Ipv4Addr, timeout: Duration) -> Self {
        Self::at(format!("http://{}", SocketAddr::new(pods::address(address), REST_PORT)), timeout)
    }

    /// Behind a proxy: `base` comes before Flink's own paths.
    pub fn at(base: String, timeout: Duration) -> Self {
        Self::of(base, Client::builder().no_proxy().timeout(timeout).build().expect("an HTTP client"))
    }

    pub fn of(base: String, client: Client) -> Self {
        Self { base, client }
    }

    /// What is there, as Flink documents it.
    pub async fn get(&self, path: &str) -> Result<Value> {
        answer(self.client.get(format!("{}{path}", self.base))).await
    }

    pub async fn overview(&self) -> Result<Value> {
        self.get("/overview").await
    }

    /// Stores a jar at this JobManager; returns its id there.
    pub async fn upload(&self, jar: &Path) -> Result<String> {
        let name = jar.file_name().context("a jar has a name")?.to_string_lossy().into_owned();
        let part = multipart::Part::bytes(std::fs::read(jar)?).file_name(name).mime_str("application/java-archive")?;
        let form = multipart::Form::new().part("jarfile", part);
        let answer =
            answer(self.client.post(format!("{}/jars/upload", self.base)).multipart(form).timeout(seconds(60))).await?;
        let file = answer["filename"].as_str().with_context(|| format!("no file name in {answer}"))?;
        Ok(file.rsplit('/').next().unwrap_or(file).to_owned())
    }

    /// Runs an uploaded jar; returns the id of the job.
    pub async fn run(&self, jar: &str, class: &str, arguments: &[&str]) -> Result<String> {
        self.run_as(jar, class, arguments, None).await
    }

    /// The same under an id of the user's own.
    pub async fn run_as(&self, jar: &str, class: &str, arguments: &[&str], id: Option<&str>) -> Result<String> {
        let body = json!({"entryClass": class, "programArgsList": arguments, "jobId": id});
        let answer =
            answer(self.client.post(format!("{}/jars/{jar}/run", self.base)).json(&body).timeout(seconds(60))).await?;
        Ok(answer["jobid"].as_str().with_context(|| format!("no job in {answer}"))?.to_owned())
    }

    pub async fn jobs(&self) -> Result<Vec<Job>> {
        let answer = answer(self.client.get(format!("{}/jobs/overview", self.base))).await?;
        let jobs = answer["jobs"].as_array().with_context(|| format!("no jobs in {answer}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let job = |job: &Value| Job {
            id: text(&job["jid"]),
            state: text(&job["state"]),
            running_tasks: number(&job["tasks"]["running"]),
            tasks: number(&job["tasks"]["total"]),
        };
        Ok(jobs.iter().map(job).collect())
    }

    pub async fn job(&self, id: &str) -> Result<Job> {
        self.jobs()
            .await?
            .into_iter()
            .find(|job| job.id == id)
            .ok_or_else(|| anyhow!("the JobManager knows no job {id}"))
    }

    pub async fn checkpoints(&self, job: &str) -> Result<Checkpoints> {
        let answer = answer(self.client.get(format!("{}/jobs/{job}/checkpoints", self.base))).await?;
        let count =
            |name: &str| answer["counts"][name].as_u64().with_context(|| format!("no count {name} in {answer}"));
        Ok(Checkpoints {
            completed: count("completed")?,
            failed: count("failed")?,
            restores: count("restored")?,
            latest: answer["latest"]["completed"]["id"].as_u64(),
            restored: answer["latest"]["restored"]["id"].as_u64(),
        })
    }

    /// Begins to stop the job with a savepoint, which commits all of its output.
    pub async fn stop_with_savepoint(&self, job: &str, directory: &str) -> Result<()> {
        let body = json!({"targetDirectory": directory, "drain": false});
        answer(self.client.post(format!("{}/jobs/{job}/stop", self.base)).json(&body).timeout(seconds(60)))
            .await
            .map(drop)
    }

    /// Signal Flink to end its cluster, jobs and all.
    pub async fn end_cluster(&self) -> Result<()> {
        answer(self.client.delete(format!("{}/cluster", self.base))).await.map(drop)
    }

    pub async fn cancel(&self, job: &str) -> Result<()> {
        answer(self.client.patch(format!("{}/jobs/{job}?mode=cancel", self.base))).await.map(drop)
    }
}

async fn answer(request: RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}
