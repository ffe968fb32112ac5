//! Control planes that are used again: one that a test has only talked to serves the next test too, as if it were new.
//! Its start costs six seconds of processor time, as much as two JVMs of Flink.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use super::control_plane::ControlPlane;
use super::host::Directory;

static USED: Mutex<Vec<ControlPlane>> = Mutex::new(Vec::new());

/// A control plane for one test.
pub struct Plane {
    plane: Option<ControlPlane>,
    /// The test stopped, killed or added something.
    disturbed: bool,
}

impl Plane {
    pub async fn get() -> Self {
        let used = USED.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let plane = match used {
            Some(mut plane) => {
                plane.directory.unmark();
                plane.forget().await;
                plane
            }
            None => {
                Directory::remove_marked();
                ControlPlane::start().await
            }
        };
        Self { plane: Some(plane), disturbed: false }
    }

    /// A new one whose audit log has no bodies, which cost the API server as much as the requests. No other test gets
    /// it afterwards.
    pub async fn brief() -> Self {
        Directory::remove_marked();
        let policy =
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
        Self { plane: Some(ControlPlane::start_with(policy).await), disturbed: true }
    }
}

impl Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        self.plane.as_ref().expect("a plane until it is dropped")
    }
}

/// Whoever changes a process of the plane disturbs it.
impl DerefMut for Plane {
    fn deref_mut(&mut self) -> &mut ControlPlane {
        self.disturbed = true;
        self.plane.as_mut().expect("a plane until it is dropped")
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Of a failed test all logs are kept.
        if !self.disturbed && !std::thread::panicking() {
            let plane = self.plane.take();
            // Nobody drops it when the program ends.
            plane.iter().for_each(|plane| plane.directory.mark());
            USED.lock().unwrap_or_else(PoisonError::into_inner).extend(plane);
        }
    }
}
