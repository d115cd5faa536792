import Synchronization

/// How many records the coordinator has looked at since the process started.
///
/// Tests compare what one request adds in a small server and in a large one: a walk over all runs, rounds or clients shows as a number,
/// on any machine and in any build. Counting costs a load and a store; where two threads count at once, one may be lost.
package enum WorkCount {
    private static let count = Atomic(0)

    /// Records that were looked at.
    package static var total: Int { count.load(ordering: .relaxed) }

    /// Counts some.
    @inline(__always)
    static func note(_ records: Int = 1) {
        count.store(count.load(ordering: .relaxed) &+ records, ordering: .relaxed)
    }
}

/// An array each of whose elements counts when it is looked at; see ``WorkCount``.
struct CountedArray<Element> {
    private var elements: [Element] = []

    /// Adds an element at the end.
    mutating func append(_ element: Element) { elements.append(element) }
}

extension CountedArray: RandomAccessCollection, MutableCollection {
    var startIndex: Int { 0 }
    var endIndex: Int { elements.count }

    subscript(place: Int) -> Element {
        get {
            WorkCount.note()
            return elements[place]
        }
        _modify {
            WorkCount.note()
            yield &elements[place]
        }
    }
}

extension CountedArray: ExpressibleByArrayLiteral {
    init(arrayLiteral elements: Element...) { self.elements = elements }
}

extension CountedArray: Sendable where Element: Sendable {}
extension CountedArray: Equatable where Element: Equatable {}
