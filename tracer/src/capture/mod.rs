//! Ring-buffer records to events, and the recorded form of the same events.
