//! The operator, installed from the chart of this working tree, or of the former version.

use std::sync::OnceLock;
use std::time::Instant;

use super::machine::Printed;
use super::machine::kubectl;
use super::machine::machine;
use super::machine::run;
use crate::support::say;
use crate::support::script;

pub const NAMESPACE: &str = "flinkha-system";
const DEPLOYMENT: &str = "deployment/flinkha-operator";
pub const DEFINITION: &str = "customresourcedefinition/flinkhaclusters.flinkha.dev";

/// The release that tests share.
const RELEASE: &str = "flinkha";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha");

/// Installs the chart with this working tree's image, as a user would; an installation that is up to date stays as it
/// is.
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        machine();
        // Where the definition is there without a release, Helm leaves it as it is.
        kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &format!("{CHART}/crds")]);
        helm_upgrade();
    });
}

/// The same, whatever is installed, by Helm alone: the chart's Job upgrades the definition.
pub fn helm_upgrade() {
    release(RELEASE, CHART, &script("rig/image", &[]), &[]);
    scale(1);
}

/// Installs chart, definition and image of the former version in place of this one. No resource may be left.
pub fn install_former() {
    kubectl(&["delete", "flinkhaclusters", "--all", "--all-namespaces", "--timeout", "300s"]);
    uninstall();
    kubectl(&["delete", DEFINITION, "--timeout", "60s"]);
    let (chart, image) = (script("rig/former", &["chart"]), script("rig/former", &["image"]));
    release(RELEASE, &chart, &image, &["--set", "image.tag=former"]);
    scale(1);
}

/// Brings the version back that was installed before the last upgrade.
pub fn roll_back() {
    helm(&["rollback", RELEASE, "--wait", "--timeout", "300s"]);
}

/// `helm uninstall` of the release that tests share.
pub fn uninstall() {
    uninstalled(RELEASE).unwrap_or_else(|error| panic!("helm failed: {error}"));
}

/// `helm test`: an operator of the release works.
pub fn test(release: &str) {
    helm(&["test", release, "--timeout", "120s"]);
}

/// A further release of this working tree's chart in the same namespace, until it is dropped.
pub struct Release(&'static str);

impl Release {
    pub fn install(name: &'static str, values: &[&str]) -> Self {
        let installed = Self(name);
        release(name, CHART, &script("rig/image", &[]), values);
        installed
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // A test that has failed shows its own error.
        let _ = uninstalled(self.0);
    }
}

fn uninstalled(release: &str) -> Printed {
    run("helm", &["uninstall", release, "--wait", "--ignore-not-found", "--namespace", NAMESPACE], "")
}

fn helm(arguments: &[&str]) {
    let arguments = [arguments, &["--namespace", NAMESPACE]].concat();
    run("helm", &arguments, "").unwrap_or_else(|error| panic!("helm {} failed: {error}", arguments.join(" ")));
}

fn release(name: &str, chart: &str, image: &str, values: &[&str]) {
    let begin = Instant::now();
    script("rig/load", &[image]);
    // The image's name stays the same when the program changes; with its id in the pods they change too.
    let id = format!("podAnnotations.image={}", image_id(image));
    let install = ["upgrade", "--install", name, chart, "--namespace", NAMESPACE, "--create-namespace"];
    let wait = ["--set-string", &id, "--wait", "--timeout", "300s"];
    let upgraded = || run("helm", &[install.as_slice(), &wait, values].concat(), "");
    // A run that was ended in the middle of it leaves a release that nobody may touch.
    let abandoned = |error: &String| error.contains("another operation") && error.contains("in progress");
    let again = |error| if abandoned(&error) { uninstalled(name).and_then(|_| upgraded()) } else { Err(error) };
    upgraded().or_else(again).unwrap_or_else(|error| panic!("helm failed: {error}"));
    say(format!("release {name} of {image} is installed ({:.0} s)", begin.elapsed().as_secs_f32()));
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
