//! Errors.

wire! {
    /// The body of every response with a status of 400 and above.
    pub struct ErrorResponse {
        /// What went wrong, in words that clients print and parse.
        #[serde(rename = "message")]
        pub message: String,
    }
}
