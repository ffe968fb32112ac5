//! The operator, installed from the chart of this working tree, or of the former version.

use std::sync::OnceLock;
use std::time::Instant;

use super::machine::kubectl;
use super::machine::machine;
use super::machine::run;
use crate::support::say;
use crate::support::script;

pub const NAMESPACE: &str = "flinkha-system";
const DEPLOYMENT: &str = "deployment/flinkha-operator";

/// Installs the chart with this working tree's image, as a user would; an installation that is up to date stays as it
/// is.
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(upgrade);
}

/// The same, whatever is installed.
pub fn upgrade() {
    machine();
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha");
    release(chart, &script("rig/image", &[]), &[]);
}

/// Installs chart and image of the former version in place of this one, for which no resource may be left.
pub fn install_former() {
    kubectl(&["delete", "flinkhaclusters", "--all", "--all-namespaces", "--timeout", "300s"]);
    run("helm", &UNINSTALL, "").unwrap_or_else(|error| panic!("helm failed: {error}"));
    release(&script("rig/former", &["chart"]), &script("rig/former", &["image"]), &["--set", "image.tag=former"]);
}

const UNINSTALL: [&str; 5] = ["uninstall", "flinkha", "--wait", "--namespace", NAMESPACE];

fn release(chart: &str, image: &str, values: &[&str]) {
    let begin = Instant::now();
    script("rig/load", &[image]);
    // Helm installs CustomResourceDefinitions, but does not upgrade them.
    kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &format!("{chart}/crds")]);
    // The image's name stays the same when the program changes; with its id in the pods they change too.
    let id = format!("podAnnotations.image={}", image_id(image));
    let install = ["upgrade", "--install", "flinkha", chart, "--namespace", NAMESPACE, "--create-namespace"];
    let wait = ["--set-string", &id, "--wait", "--timeout", "300s"];
    let helm = || run("helm", &[install.as_slice(), &wait, values].concat(), "");
    // A run that was ended in the middle of it leaves a release that nobody may touch.
    let abandoned = |error: &String| error.contains("another operation") && error.contains("in progress");
    let installed = helm()
        .or_else(|error| if abandoned(&error) { run("helm", &UNINSTALL, "").and_then(|_| helm()) } else { Err(error) });
    installed.unwrap_or_else(|error| panic!("helm failed: {error}"));
    scale(1);
    say(format!("the operator of {image} is installed ({:.0} s)", begin.elapsed().as_secs_f32()));
}

fn image_id(image: &str) -> String {
    let output = std::process::Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", image]).output();
    String::from_utf8_lossy(&output.expect("failed to run docker").stdout).trim().to_owned()
}

/// So many operators, when it returns.
pub fn scale(replicas: u32) {
    kubectl(&["--namespace", NAMESPACE, "scale", DEPLOYMENT, "--replicas", &replicas.to_string()]);
    kubectl(&["--namespace", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout", "240s"]);
    if replicas == 0 {
        kubectl(&["--namespace", NAMESPACE, "wait", "pods", "--all", "--for", "delete", "--timeout", "180s"]);
    }
}

/// Deletes the operator's pods without waiting for anything.
pub fn delete_pods() {
    kubectl(&["--namespace", NAMESPACE, "delete", "pods", "--all", "--now", "--wait=false"]);
}
