export { call } from './docker.js'
export { Lab, type LabHost, type LabOptions, type LabPlan, labDir, planLab, SHOALD } from './lab.js'
export { BUSYBOX, WEB_CHANGES, webRootfs } from './web-image.js'
