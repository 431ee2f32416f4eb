export { Allocator } from './allocator.js'
export { AllocationBook } from './book.js'
