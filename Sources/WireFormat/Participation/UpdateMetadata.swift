/// Names of fields in the metadata of an update that more than one side reads.
package enum UpdateMetadata {
    /// Whether the update's norm was within C before it was clipped, `1` or `0`: policy `adaptive` follows their noisy share.
    package static let withinNorm = "within_norm"
}
