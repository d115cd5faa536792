/// An accepted update on disk and its weight.
public struct SpooledUpdate: Sendable {
    /// The safetensors file.
    public var path: String
    /// The number of examples, or 1 if all clients count the same.
    public var weight: Int
    /// A text that depends on the update's content only, such as its SHA-256.
    ///
    /// Rules that are not sums go through updates in this order, so that their result does not depend on the order of arrival.
    public var contentID: String

    /// The factor of every value, from 0 to 1; below 1 for an update that is longer than its bound.
    public var factor: Double

    /// Creates an update; without a `contentID` the path takes its place.
    public init(path: String, weight: Int, contentID: String? = nil, factor: Double = 1) {
        precondition((0...1).contains(factor), "an update is made shorter, never longer")
        self.path = path
        self.weight = weight
        self.factor = factor
        self.contentID = contentID ?? path
    }
}
