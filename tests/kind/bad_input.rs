//! Resources that make no sense are refused with a sentence that names the field.

use serde_json::{Value, json};

use crate::kit::machine::run;
use crate::kit::namespace::Namespace;
use crate::kit::operator;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

/// What is wrong, where, and what the refusal must say.
fn cases() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        ("/spec/flinkConfig", json!({}), &["unknown field", "spec.flinkConfig"]),
        ("/spec/jobManager/replicas", json!(0), &["spec.jobManager.replicas", "greater than or equal to 1"]),
        (
            "/spec/flinkConfiguration/high-availability.type",
            json!("zookeeper"),
            &["spec.flinkConfiguration", "high-availability.type", "spec.highAvailability"],
        ),
        ("/spec/highAvailability/storageDir", Value::Null, &["spec.highAvailability.storageDir", "Required"]),
        (
            "/spec/highAvailability/storageDir",
            json!("/flink/ha"),
            &["spec.highAvailability.storageDir", "must be a URI"],
        ),
        (
            "/spec/highAvailability/lease",
            json!({"duration": "10s", "renewDeadline": "10s"}),
            &["lease.renewDeadline must be shorter than lease.duration"],
        ),
        ("/spec/jobManager/podTemplate/spec/hostNetwork", json!(true), &["hostNetwork", "is not possible"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_a_sentence_that_names_the_field() {
    let _share = machine::share().await;
    operator::install();
    let namespace = Namespace::fresh("kind-bad-input");
    for (path, value, expected) in cases() {
        let mut resource = ours::example();
        set(&mut resource, path, value);
        let apply = ["--namespace", &namespace.0, "apply", "--filename", "-"];
        let said = run("kubectl", &apply, &resource.to_string()).expect_err(path);
        say(&said);
        for words in expected {
            assert!(said.contains(words), "{path}: {words:?} is not in: {said}");
        }
    }
    namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_inside_of_a_pod_template_is_told_in_a_condition() {
    let _share = machine::share().await;
    let mut resource = ours::example();
    set(&mut resource, "/spec/jobManager/podTemplate/spec/nodeSelektor", json!({}));
    let cluster = ours::apply(Namespace::fresh("kind-bad-template"), &resource).await;
    let degraded = async || cluster.degraded().await.filter(|(reason, _)| reason == "InvalidPodTemplate");
    let (_, message) = eventually("the condition", seconds(30), degraded).await;
    say(&message);
    assert!(message.contains("spec.jobManager.podTemplate.spec.nodeSelektor"), "{message}");
    cluster.namespace.delete();
}

/// Sets a value, or takes it away if it is null.
fn set(resource: &mut Value, path: &str, value: Value) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = resource.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), value)
    };
}
