//! Crashes, outages and full disks: nothing that was acknowledged is lost or counts twice.

mod crash;
mod disks;
mod failures;
mod merge_crash;
mod outages;
mod panics;
mod termination;
