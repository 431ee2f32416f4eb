import type { NodeDescription, Task } from '#proto'
import { invalid } from '../../common/index.js'

/** Where placeholders look: swarm-semantics 8.6. */
export interface TemplateContext {
  readonly task: Task
  readonly nodeId: string
  readonly node: NodeDescription
}

/** Name of a task as users see it: `web.1`, or `web.<node id>` for global services. */
export const slotOf = (t: Task): string => (t.slot > 0 ? String(t.slot) : t.nodeId)
export const taskName = (t: Task): string => `${t.serviceAnnotations?.name ?? ''}.${slotOf(t)}.${t.id}`

/** Replaces `{{.Service.Name}}` and its kin; an unknown placeholder is an error that names it. */
export function expand(text: string, c: TemplateContext): string {
  return text.replace(/\{\{(.*?)\}\}/g, (_all, inner: string) => {
    const expression = inner.trim()
    const label = /^index \.Service\.Labels "([^"]+)"$/.exec(expression)
    if (label) return c.task.serviceAnnotations?.labels[label[1]!] ?? ''
    const value = values(c)[expression]
    if (value === undefined)
      throw invalid(
        'badTemplate',
        `template "{{${inner}}}" in "${text}": no such value; known are ${Object.keys(values(c)).join(' ')}`,
      )
    return value
  })
}

function values(c: TemplateContext): Record<string, string> {
  return {
    '.Service.ID': c.task.serviceId,
    '.Service.Name': c.task.serviceAnnotations?.name ?? '',
    '.Node.ID': c.nodeId,
    '.Node.Hostname': c.node.hostname,
    '.Node.Platform.OS': c.node.platform?.os ?? '',
    '.Node.Platform.Architecture': c.node.platform?.architecture ?? '',
    '.Task.ID': c.task.id,
    '.Task.Name': taskName(c.task),
    '.Task.Slot': slotOf(c.task),
  }
}
