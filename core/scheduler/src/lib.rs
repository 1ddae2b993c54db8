//! Decides which provider gets a job, with reasons for each one passed over.
