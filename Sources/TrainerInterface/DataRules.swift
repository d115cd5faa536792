/// What must be done to a device's data before training, and how much there must be.
public struct DataRules: Equatable, Sendable {
    /// How texts are cleaned; `nil` leaves them as they are.
    public var cleaning: CleaningOptions?
    /// Records or rows that must be left, at least.
    public var minimumRecords: Int
    /// Characters that must be left, at least; of texts only.
    public var minimumCharacters: Int

    /// Leaves everything as it is, and takes what there is.
    public static let none = DataRules()

    /// Creates rules.
    public init(cleaning: CleaningOptions? = nil, minimumRecords: Int = 0, minimumCharacters: Int = 0) {
        self.cleaning = cleaning
        self.minimumRecords = minimumRecords
        self.minimumCharacters = minimumCharacters
    }
}
