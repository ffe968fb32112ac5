//! What a gateway is told of the election, and what it says is to be done.

use std::time::Duration;

use super::{Candidate, Sessions};
use crate::flink::result;
use crate::ha_data::handover::{HandoverPlan, StoredState};
use crate::lease::term::{Incarnation, Term};

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed.
    Tick,
    /// Our own client has this session.
    Connected { session: i64 },
    /// It has ended.
    Disconnected,
    /// The election as a server showed it, by our session. It may be late, and proves nothing.
    Viewed(View),
    /// The sessions of this pod's processes have changed.
    Sessions(Sessions),
    /// This JVM of an application waits to be let in to the quorum; `None` when none does.
    Waiting(Option<Incarnation>),
    /// A newer term than ours was found in the ledger.
    Overtaken,
    /// The pod terminates, and its JVM is told so.
    Terminating,
    /// What became of the request in flight. Each request gets one answer.
    Done(RequestOutcome),
}

/// What one look at the election shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The leader first.
    pub candidates: Vec<Candidate>,
    /// Session that has published the dispatcher's address, which Flink does when it is granted leadership.
    pub publisher: Option<i64>,
    /// How long our JVM has sent nothing, not even tried to connect.
    pub silence: Duration,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestOutcome {
    /// It was done, or there was nothing to do.
    Done,
    /// Of [`Request::TakeTerm`].
    Term(Term),
    /// Of [`Request::Examine`].
    Found(Finding),
    /// It was not done, or that is not known. It is safe to ask for it again.
    Failed,
}

/// What is stored, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    pub state: StoredState,
    /// The run is being stopped with a savepoint that is not on record yet: another run goes on from there.
    pub is_being_stopped: bool,
    /// What is stored is ours, and its start is not on record yet as the last.
    pub is_to_be_raised: bool,
    /// Version of the znode with the mark.
    pub version: i32,
}

impl Finding {
    /// A session cluster: whatever is stored is its own.
    pub fn of_session_cluster() -> Self {
        Self { state: StoredState::Ours, is_being_stopped: false, is_to_be_raised: false, version: 0 }
    }

    /// A JVM may lead. Where another run goes on where this one is stopped, it must first be known from where.
    pub fn opens(&self) -> bool {
        match self.state {
            StoredState::Ours | StoredState::Finishing => true,
            StoredState::Finished(_) => self.is_being_stopped,
            StoredState::Foreign(_) | StoredState::Later(_) | StoredState::Unnamed(_) | StoredState::Supersede(_) => {
                false
            }
        }
    }
}

/// What takes time: one at a time, and each is answered by [`Event::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Take the next term for this latch: with a JVM by writing the ledger, else by reading it; the first write in that
    /// term fails if another gateway has written since.
    TakeTerm { latch: String, jvm: Option<Incarnation> },
    /// Read what is stored and decide whose it is. With a term: the latch of this term is ours.
    Examine { term: Option<Term> },
    /// Write into the ledger that the JVM leads. `leaderless`: how long nobody did.
    NoteGrant { term: Term, leaderless: Duration },
    /// Write into the ledger that the JVM leads no more, if this term still stands there.
    Release { term: Term, why: &'static str },
    /// Write the start of our pods beside the mark, if that still has this version.
    Raise { version: i32 },
    /// Create a latch node of our own.
    Stand,
    /// Delete our latch nodes.
    Withdraw,
    /// Write down where our version goes on, and make what is stored its own, if our latch is there and the mark still
    /// has this version.
    TakeOver { latch: String, term: Term, plan: HandoverPlan, version: i32 },
    /// Remove what is left of a run that has ended.
    CleanUp { term: Term, outcome: Option<result::Outcome> },
    /// Say why no JVM is let in. `is_alone`: nobody else leads, so the resource is to say it.
    Refuse { term: Option<Term>, state: StoredState, is_alone: bool },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // few at a time, never stored
pub enum Action {
    Ask(Request),
    /// The JVM leads in this term: it is to be published.
    Lead {
        term: Term,
        leaderless: Duration,
    },
    /// The end of the run was on record when this term began: the JVM leads only to clean up. Comes before `Lead`.
    NoteEnding {
        term: Term,
    },
    /// This JVM may go to the quorum.
    Admit {
        jvm: Incarnation,
    },
    /// It may do so no more when it connects again.
    ShutOut {
        jvm: Incarnation,
    },
    /// End this process, if it lives.
    EndJvm {
        jvm: Incarnation,
        why: &'static str,
    },
    /// End the sessions of all processes of this pod.
    EndSessions,
    /// Say on the resource why the last request failed, if that does not go by itself.
    ExplainFailure,
}
