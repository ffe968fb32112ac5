//! `rest`: reads Flink's REST API at the leader, through a port-forward to its pod. Only GET is sent.
//!
//! The connection ends in the pod that the API server is asked for, so the certificate of a Flink with TLS says nothing
//! more, and any is accepted. A Flink that requires a certificate of its clients cannot be asked in this way.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::access::PluginAccess;
use super::arguments::RestArguments;
use super::clusters::read_cluster;
use super::exec::leading_pod;
use super::failure::{Failure, said};
use super::output::Output;
use super::view::cluster::ClusterReport;
use crate::api::FlinkHaCluster;
use crate::api::names::REST_PORT;
use crate::flink::tls::{rest_authenticates, rest_is_encrypted};
use crate::world::error_text::chain;
use crate::world::flink_rest::first_error;
use crate::world::tls;

/// Limit for the beginning of an answer, and for each part of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer that is an error.
const ERROR: usize = 64 << 10;

/// Prints what Flink answers.
///
/// # Errors
/// When nobody leads, when the pod is not reached, and when Flink answers with an error.
pub async fn rest(access: &PluginAccess, arguments: &RestArguments, output: Output) -> Result<(), Failure> {
    let sources = read_cluster(access, &arguments.name).await?;
    let encrypted = encrypted(&sources.resource).map_err(Failure::Refused)?;
    let report = ClusterReport::of(&sources, jiff::Timestamp::now());
    let pod = leading_pod(&report).map_err(Failure::Refused)?;
    let pods: Api<Pod> = Api::namespaced(access.patient_client()?, &access.namespace);
    let forwarded = timeout(PATIENCE, pods.portforward(&pod, &[REST_PORT])).await;
    let forwarded = forwarded.map_err(|_| Failure::Request(format!("no connection to {pod} within 20 s")))?;
    let mut forwarded = forwarded
        .map_err(|error| Failure::Request(format!("failed to forward port {REST_PORT} of {pod}: {}", said(&error))))?;
    let none = || Failure::Request(format!("the API server forwards no port of {pod}"));
    let stream = forwarded.take_stream(REST_PORT).ok_or_else(none)?;
    let failed =
        |error: &anyhow::Error| Failure::Request(format!("failed to ask Flink in {pod}: {}", chain(error.as_ref())));
    if !encrypted {
        return asked(stream, &arguments.path, output).await.map_err(|error| told(error, failed));
    }
    let config = tls::loopback(None).map_err(|error| failed(&error))?;
    let server = ServerName::try_from("localhost").map_err(|error| failed(&error.into()))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server, stream).await.map_err(|error| failed(&error.into()))?;
    asked(stream, &arguments.path, output).await.map_err(|error| told(error, failed))
}

/// Whether the endpoint speaks TLS.
///
/// # Errors
/// When it asks for a certificate, which nobody outside of the cluster has.
fn encrypted(resource: &FlinkHaCluster) -> Result<bool, String> {
    let spec = &resource.spec;
    let value = |key: &str| spec.flink_configuration.get(key).map(ToString::to_string);
    let values: std::collections::BTreeMap<String, String> =
        spec.flink_configuration.keys().filter_map(|key| Some((key.clone(), value(key)?))).collect();
    let value = |key: &str| values.get(key).map(String::as_str);
    let of_spec = spec.tls.as_ref().and_then(|tls| tls.rest.as_ref());
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    if of_spec.is_some_and(|rest| rest.client_authentication) || rest_authenticates(value) {
        return Err(format!(
            "Flink's REST endpoint of {name} requires a certificate of its clients, and the plugin has none; forward port \
             {REST_PORT} with kubectl port-forward, and use the certificate with a client of your choice"
        ));
    }
    Ok(of_spec.is_some() || rest_is_encrypted(value))
}

/// Why there is no answer.
enum Unanswered {
    Error(anyhow::Error),
    Failure(Failure),
}

impl<E: Into<anyhow::Error>> From<E> for Unanswered {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn told(why: Unanswered, failed: impl Fn(&anyhow::Error) -> Failure) -> Failure {
    match why {
        Unanswered::Error(error) => failed(&error),
        Unanswered::Failure(failure) => failure,
    }
}

/// Sends the request on this connection, and writes the answer as it comes.
async fn asked(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    output: Output,
) -> Result<(), Unanswered> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(http::header::HOST, "localhost");
    let request = request.header(http::header::ACCEPT, "*/*").body(Empty::<Bytes>::new())?;
    let answer = timeout(PATIENCE, sender.send_request(request)).await??;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut error, mut last) = (Vec::new(), b'\n');
    while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
        let Ok(data) = frame?.into_data() else { continue };
        if status.is_success() {
            last = data.last().copied().unwrap_or(last);
            output.write_bytes(&data).map_err(Unanswered::Failure)?;
        } else if error.len() < ERROR {
            error.extend_from_slice(&data);
        }
    }
    if !status.is_success() {
        return Err(Unanswered::Failure(Failure::Request(refusal(status, &error))));
    }
    // A terminal goes on in a new line; a program gets what Flink wrote.
    if output.is_terminal && last != b'\n' {
        output.write("\n").map_err(Unanswered::Failure)?;
    }
    std::io::stdout().flush()?;
    Ok(())
}

/// Flink's error as a sentence.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    format!("Flink answers {status}: {}", first_error(&json).unwrap_or("it gives no reason"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::tests as fixture;

    fn resource(change: impl FnOnce(&mut Value)) -> FlinkHaCluster {
        let cluster = fixture::cluster();
        let mut resource = json!({
            "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "metadata": { "name": "demo" },
            "spec": cluster.spec(),
        });
        change(&mut resource["spec"]);
        serde_json::from_value(resource).expect("a resource")
    }

    #[test]
    fn tls_is_spoken_where_flink_does_and_a_certificate_is_not_invented() {
        assert_eq!(encrypted(&resource(|_| ())), Ok(false));
        let tls = json!({ "rest": { "name": "b" } });
        assert_eq!(encrypted(&resource(|spec| spec["tls"] = tls)), Ok(true));
        let key = "security.ssl.rest.enabled";
        assert_eq!(encrypted(&resource(|spec| spec["flinkConfiguration"][key] = json!("true"))), Ok(true));
        let mutual = json!({ "rest": { "name": "b", "clientAuthentication": true } });
        let why = encrypted(&resource(|spec| spec["tls"] = mutual)).expect_err("it needs a certificate");
        assert!(why.contains("requires a certificate of its clients"), "{why}");
    }

    #[test]
    fn an_error_of_flink_is_one_sentence() {
        let body = br#"{"errors":["\n","Job could not be found\n\tat a.b"]}"#;
        let said = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(said, "Flink answers 404 Not Found: Job could not be found");
        assert!(refusal(StatusCode::BAD_GATEWAY, b"<html>").ends_with("it gives no reason"));
    }
}
